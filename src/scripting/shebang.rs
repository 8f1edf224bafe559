//! The first line of a script or a library, `#!lua name=... flags=...`.

use shard::Error;

use super::refusal;

/// What the first line of a script says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shebang {
    /// There is one.
    pub is_present: bool,
    /// The script changes no key.
    pub is_read_only: bool,
    /// Where the program begins: at the end of that line, so that lines keep their numbers.
    pub program_at: usize,
}

/// The flags of scripts and functions. Those but the first are about what this server does not have.
pub const FLAGS: [&str; 5] = ["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

impl Shebang {
    /// That of a script.
    ///
    /// # Errors
    /// It says what cannot be meant.
    pub fn of_script(body: &[u8]) -> Result<Shebang, Error> {
        if !body.starts_with(b"#!") {
            return Ok(Shebang::default());
        }
        let end =
            body.iter().position(|byte| *byte == b'\n').ok_or_else(|| refusal("Invalid script shebang"))?;
        let line = String::from_utf8_lossy(&body[..end]);
        let mut words = line.split_ascii_whitespace();
        let engine = words.next().unwrap_or_default();
        if engine != "#!lua" {
            return Err(refusal(format_args!("Unexpected engine in script shebang: {engine}")));
        }
        let mut shebang = Shebang { is_present: true, is_read_only: false, program_at: end };
        for word in words {
            let Some(flags) = word.strip_prefix("flags=") else {
                return Err(refusal(format_args!("Unknown lua shebang option: {word}")));
            };
            for flag in flags.split(',').filter(|_| !flags.is_empty()) {
                if !FLAGS.contains(&flag) {
                    return Err(refusal(format_args!("Unexpected flag in script shebang: {flag}")));
                }
                shebang.is_read_only |= flag == FLAGS[0];
            }
        }
        Ok(shebang)
    }
}

/// The name of a library, by its first line, and where the program begins.
///
/// # Errors
/// The line names none.
pub fn library_name(code: &[u8]) -> Result<(String, usize), Error> {
    if !code.starts_with(b"#!") {
        return Err(refusal("Missing library metadata"));
    }
    let end =
        code.iter().position(|byte| *byte == b'\n').ok_or_else(|| refusal("Invalid library metadata"))?;
    let line = String::from_utf8_lossy(&code[2..end]);
    let mut words = line.split_ascii_whitespace();
    let engine = words.next().unwrap_or_default();
    let mut name = None;
    for word in words {
        match word.strip_prefix("name=") {
            Some(_) if name.is_some() => {
                return Err(refusal("Invalid metadata value, name argument was given multiple times"));
            }
            Some(given) => name = Some(given.to_owned()),
            None => return Err(refusal(format_args!("Invalid metadata value given: {word}"))),
        }
    }
    let name = name.ok_or_else(|| refusal("Library name was not given"))?;
    if !is_name(&name) {
        return Err(refusal(NAME_RULE));
    }
    if !engine.eq_ignore_ascii_case("lua") {
        return Err(refusal(format_args!("Engine '{engine}' not found")));
    }
    Ok((name, end))
}

/// What names have to be.
pub const NAME_RULE: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least \
                             one character long";

/// Whether this can be the name of a library or a function.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
