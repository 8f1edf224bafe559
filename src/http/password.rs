//! The password of the admin port: read from its file at the start, and compared in a time that tells nothing of it, not
//! even its length.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::failure::Failure;

/// The user who has it.
const USER: &str = "admin";

/// What of the file is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// So many bytes are compared, whatever was given. The head of a request has no room for as many.
const COMPARED_BYTES: usize = 16 << 10;

/// A password.
pub(crate) struct Password(Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// The first line of this file. Warns where others than its owner and its group may read it.
    ///
    /// # Errors
    /// [`Failure::Password`]
    pub fn read(path: &Path) -> Result<Password, Failure> {
        let failed = |error| Failure::Password { path: path.to_owned(), error: Some(error) };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o004 != 0 {
            tracing::warn!(
                path = %path.display(),
                remedy = "chmod o-r",
                "every user of this machine can read the password of the admin port"
            );
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line {
            [] => Err(Failure::Password { path: path.to_owned(), error: None }),
            line => Ok(Password(line.to_vec())),
        }
    }

    /// Whether the value of a header `Authorization` gives it, as RFC 7617 writes it.
    pub fn is_given(&self, authorization: Option<&[u8]>) -> bool {
        let given = authorization.and_then(|value| {
            let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
            scheme.eq_ignore_ascii_case(b"Basic ").then(|| STANDARD.decode(encoded.trim_ascii()).ok())?
        });
        let expected = [USER.as_bytes(), b":", &self.0].concat();
        given.is_some_and(|given| {
            let has_length = (given.len() as u64).ct_eq(&(expected.len() as u64));
            (has_length & padded(given).ct_eq(&padded(expected))).into()
        })
    }
}

/// As long as all others. `ct_eq` of slices tells at once that their lengths differ.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(COMPARED_BYTES, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_with_the_password_gets_in() {
        let password = Password("sésame:öffne".into());
        let given =
            |text: &str| password.is_given(Some(format!("Basic {}", STANDARD.encode(text)).as_bytes()));
        assert!(given("admin:sésame:öffne"));
        assert!(
            password.is_given(Some(format!("basic {}", STANDARD.encode("admin:sésame:öffne")).as_bytes()))
        );
        for wrong in [
            "admin:sésame:öffn",
            "admin:sésame:öffnen",
            "admin:sésame:öffne\0",
            "root:sésame:öffne",
            "admin:",
            "",
            "sésame:öffne",
        ] {
            assert!(!given(wrong), "{wrong}");
        }
        assert!(
            !password.is_given(None)
                && !password.is_given(Some(b"Basic"))
                && !password.is_given(Some(b"Basic *"))
        );
    }

    #[test]
    fn the_first_line_of_the_file_counts_and_it_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Password::read(&path)
        };
        assert_eq!(read("secret\r\nmore").unwrap().0, b"secret");
        assert_eq!(format!("{:?}", read("secret").unwrap()), "Password");
        assert!(read("\nsecret").unwrap_err().to_string().contains("is empty; write the password"));
        let missing = Password::read(&directory.path().join("none")).unwrap_err().to_string();
        assert!(
            missing.contains("cannot read --admin-password-file") && missing.contains("none"),
            "{missing}"
        );
    }
}
