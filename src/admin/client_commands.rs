//! What clients say of themselves and ask about themselves: `CLIENT`, `HELLO`.

use std::borrow::Cow;

use shard::command::Server;
use shard::{Error, Reply, Request, parse_database, parse_integer};

use super::REDIS_VERSION;
use crate::client::{Client, Stage};
use crate::protocol::Dialect;

/// The reply to a command about the connection.
pub(super) fn run<'r>(
    client: &mut Client,
    request: &Request<'r>,
    server: Server,
    (worker, databases): (usize, u16),
) -> Result<Reply<'r>, Error> {
    Ok(match server {
        Server::ClientGetname => name(client),
        Server::ClientId => Reply::Integer(client.id as i64),
        Server::ClientInfo => Reply::Text(describe(client, "", worker)),
        Server::ClientSetinfo => set_info(client, request)?,
        Server::ClientSetname => set_name(client, request)?,
        Server::Echo => Reply::bytes(request.arg(0)),
        Server::Hello => hello(client, request)?,
        Server::Ping if client.subscriptions.is_some() && client.session.dialect == Dialect::Resp2 => {
            Reply::Array(vec![Reply::bytes(b"pong"), Reply::bytes(request.args().next().unwrap_or_default())])
        }
        Server::Ping => request.args().next().map_or(Reply::Simple("PONG"), Reply::bytes),
        Server::Select => {
            client.session.database = parse_database(request.arg(0), databases)?;
            Reply::Ok
        }
        Server::Quit => {
            client.stage = Stage::Closing;
            if client.session.dialect == Dialect::Text { Reply::Simple("OK goodbye") } else { Reply::Ok }
        }
        Server::Reset => {
            client.session.reset();
            Reply::Simple("RESET")
        }
        _ => unreachable!("{} is not about the connection", request.command.name),
    })
}

pub(super) fn name(client: &Client) -> Reply<'static> {
    let name = client.session.name.clone();
    if name.is_empty() { Reply::Nil } else { Reply::Bulk(Cow::Owned(name)) }
}

pub(super) fn set_name(client: &mut Client, request: &Request<'_>) -> Result<Reply<'static>, Error> {
    client.session.name = client_name(request.arg(0))?;
    Ok(Reply::Ok)
}

pub(super) fn set_info(client: &mut Client, request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let attribute = request.arg(0).to_ascii_lowercase();
    let known: [&[u8]; 2] = [b"lib-name", b"lib-ver"];
    let Some(index) = known.into_iter().position(|name| name == attribute) else {
        return Err(Error::UnknownClientAttribute(request.arg(0).into()));
    };
    client.session.library[index] = client_name(request.arg(1))?;
    Ok(Reply::Ok)
}

/// A line about a client, with some fields in the middle.
pub(crate) fn describe(client: &Client, fields: &str, shard: usize) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "id={} name={} db={}{fields} resp={} lib-name={} lib-ver={} shard={shard}\n",
        client.id,
        shown(&client.session.name),
        client.session.database,
        if client.session.dialect == Dialect::Resp3 { 3 } else { 2 },
        shown(&client.session.library[0]),
        shown(&client.session.library[1]),
    )
}

/// A list of clients shows the names of all of them.
const CLIENT_NAME_BYTES_MAX: usize = 1024;

/// A name that can stand in a list of clients: printable, without blanks.
fn client_name(name: &[u8]) -> Result<Vec<u8>, Error> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        return Err(Error::Unavailable("the names of a client and of its library have 1024 bytes at most"));
    }
    match name.iter().all(u8::is_ascii_graphic) {
        true => Ok(name.to_vec()),
        false => Err(Error::InvalidClientName),
    }
}

pub(super) fn hello(client: &mut Client, request: &Request<'_>) -> Result<Reply<'static>, Error> {
    if client.session.dialect == Dialect::Text {
        return Err(Error::Unavailable("the text protocol has one version; RESP clients use the RESP port"));
    }
    let mut args = request.args();
    let mut dialect = client.session.dialect;
    if let Some(version) = args.next() {
        dialect = match parse_integer(version).ok_or(Error::ProtocolNotAnInteger)? {
            2 => Dialect::Resp2,
            3 => Dialect::Resp3,
            _ => return Err(Error::NoProtocol),
        };
    }
    while let Some(option) = args.next() {
        if !option.eq_ignore_ascii_case(b"SETNAME") {
            return Err(Error::HelloSyntax(option.into()));
        }
        let name = args.next().ok_or_else(|| Error::HelloSyntax(option.into()))?;
        client.session.name = client_name(name)?;
    }
    client.session.dialect = dialect;
    let text = |text: &'static str| Reply::bytes(text.as_bytes());
    Ok(Reply::Map(vec![
        ("server".into(), text("redis")),
        ("version".into(), text(REDIS_VERSION)),
        ("proto".into(), Reply::Integer(if dialect == Dialect::Resp3 { 3 } else { 2 })),
        ("id".into(), Reply::Integer(client.id as i64)),
        ("mode".into(), text("standalone")),
        ("role".into(), text("master")),
        ("modules".into(), Reply::Array(Vec::new())),
    ]))
}
