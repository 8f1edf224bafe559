//! Which run of the machine this is. What a process has written survives its end as long as the machine runs; only
//! the end of that run can take it back.

use std::fmt;
use std::str::FromStr;

/// The identity of one run of the machine, from its start to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; BootId::BYTES]);

/// A text that is no boot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBootId;

impl BootId {
    pub(crate) const BYTES: usize = 16;

    /// The run that this process is in, as Linux tells; `None` where it does not. Then every earlier process may have
    /// been in another one.
    pub fn current() -> Option<BootId> {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
    }

    pub(crate) fn bytes(self) -> [u8; BootId::BYTES] {
        self.0
    }

    /// `None` for the zeros that stand for no boot.
    pub(crate) fn of_bytes(bytes: [u8; BootId::BYTES]) -> Option<BootId> {
        (bytes != [0; BootId::BYTES]).then_some(BootId(bytes))
    }
}

impl FromStr for BootId {
    type Err = NoBootId;

    /// 32 hexadecimal digits, with dashes anywhere, as in the text form of a UUID.
    fn from_str(text: &str) -> Result<BootId, NoBootId> {
        let digits: String = text.chars().filter(|char| *char != '-').collect();
        let is_hex = digits.len() == 2 * BootId::BYTES && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex).ok_or(NoBootId)?;
        BootId::of_bytes(number.to_be_bytes()).ok_or(NoBootId)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

impl fmt::Display for NoBootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a boot id is 32 hexadecimal digits, as in /proc/sys/kernel/random/boot_id, and not all zeros"
        )
    }
}

impl std::error::Error for NoBootId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_as_linux_writes_it() {
        let id: BootId = "69ae9645-bf7d-4041-8ad9-12a4df63b4e9".parse().unwrap();
        assert_eq!(id.bytes()[..4], [0x69, 0xae, 0x96, 0x45]);
        assert_eq!(BootId::of_bytes(id.bytes()), Some(id));
        for text in
            ["", "69ae9645", "00000000-0000-0000-0000-000000000000", "+9ae9645bf7d40418ad912a4df63b4e9"]
        {
            assert_eq!(text.parse::<BootId>(), Err(NoBootId), "{text}");
        }
        assert!(BootId::current().is_some(), "Linux tells it");
    }
}
