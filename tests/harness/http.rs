//! A client of HTTP servers on this machine: one request each, and what is in the metrics that they tell.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::process::DEADLINE;

/// An answer of an HTTP server.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

/// Sends a request to a port of this machine, and reads up to the end of the connection.
pub fn request(port: u16, method: &str, path: &str, headers: &str) -> std::io::Result<Answer> {
    request_raw(
        port,
        &format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"),
    )
}

/// The same, to the last byte.
pub fn request_raw(port: u16, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer =
        String::from_utf8(bytes).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok(Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

pub fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, "").unwrap_or_else(|error| panic!("GET {path} of port {port}: {error}"))
}

/// The value of one sample.
pub fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}
