//! The beginning of a connection: reaching the server, its greeting, and the shard that serves it. It blocks,
//! with a bound on every wait.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::Failure;
use super::generator::Connection;
use super::options::{Locality, Options, Protocol};
use super::replies::ReplyReader;
use crate::net::prepare_tcp;

/// The longest answer that is read here.
const ANSWER_BYTES_MAX: usize = 4096;

/// Opens a connection that is ready for requests.
pub fn connect(options: &Options) -> Result<Connection, Failure> {
    let socket = open(options)?;
    let shard = match options.locality {
        Locality::Any => 0,
        Locality::Local | Locality::Remote => {
            let answer = ask(options, &socket, b"CLIENT INFO\r\n")?;
            number_behind(&answer, "shard=").ok_or(Failure::NoShards(answer))?
        }
    };
    let forever = set_socket_timeout(&socket, Timeout::Recv, None);
    forever.map_err(|error| unreachable_server(options, error.into()))?;
    Ok(Connection { socket, shard })
}

/// The number of the server's shards, asked for where it matters; else 1.
pub fn shard_count(options: &Options) -> Result<usize, Failure> {
    if options.locality == Locality::Any {
        return Ok(1);
    }
    let answer = ask(options, &open(options)?, b"CONFIG GET shards\r\n")?;
    // A name and a value, each behind its length.
    let count = answer.contains("shards\r\n").then(|| answer.lines().last()?.parse().ok()).flatten();
    count.ok_or(Failure::NoShards(answer))
}

fn open(options: &Options) -> Result<OwnedFd, Failure> {
    let opened = match &options.unix_socket {
        Some(path) => UnixStream::connect(path).map(OwnedFd::from),
        None => connect_tcp(&options.host, options.port(), options.timeout),
    };
    let bounded = opened.and_then(|socket| {
        set_socket_timeout(&socket, Timeout::Recv, Some(options.timeout))?;
        Ok(socket)
    });
    let socket = bounded.map_err(|error| unreachable_server(options, error))?;
    match options.protocol {
        Protocol::Text => {
            let greeting = answer(options, &socket)?;
            if !greeting.starts_with("+OK") {
                return Err(Failure::Greeting(greeting.trim_end().to_owned()));
            }
        }
        // A server that greets, as the text protocol does, would seem to have answered the first request.
        Protocol::Resp => {
            let answer = ask(options, &socket, b"PING\r\n")?;
            if answer != "+PONG\r\n" {
                return Err(Failure::NotPong(answer.trim_end().to_owned()));
            }
        }
        Protocol::Memcached => {}
    }
    Ok(socket)
}

/// Connects to the first address of the host that accepts.
fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<OwnedFd> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                let socket = OwnedFd::from(stream);
                prepare_tcp(&socket, None)?;
                return Ok(socket);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Sends a request, and returns the bytes of its reply.
fn ask(options: &Options, socket: &OwnedFd, request: &[u8]) -> Result<String, Failure> {
    match rustix::io::write(socket, request) {
        Ok(count) if count == request.len() => answer(options, socket),
        Ok(_) => Err(unreachable_server(options, io::ErrorKind::WriteZero.into())),
        Err(error) => Err(unreachable_server(options, error.into())),
    }
}

/// Reads one reply.
fn answer(options: &Options, socket: &OwnedFd) -> Result<String, Failure> {
    let mut reader = ReplyReader::new(options.protocol);
    let (mut bytes, mut piece, mut is_whole) = (Vec::new(), [0; ANSWER_BYTES_MAX], false);
    while !is_whole && bytes.len() < ANSWER_BYTES_MAX {
        let count = match rustix::io::read(socket, &mut piece) {
            Ok(0) => return Err(Failure::Closed(None)),
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => return Err(Failure::Silent(options.timeout)),
            Err(error) => return Err(Failure::Closed(Some(error.into()))),
        };
        bytes.extend_from_slice(&piece[..count]);
        reader.read(&piece[..count], |_| is_whole = true).map_err(Failure::Malformed)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unreachable_server(options: &Options, error: io::Error) -> Failure {
    let address = match &options.unix_socket {
        Some(path) => path.display().to_string(),
        None => format!("{}:{}", options.host, options.port()),
    };
    Failure::Connect { address, error }
}

fn number_behind(text: &str, name: &str) -> Option<usize> {
    let rest = &text[text.find(name)? + name.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
