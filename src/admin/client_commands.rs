//! What clients say of themselves and ask about themselves: `CLIENT`, `HELLO`.

use std::borrow::Cow;
use std::path::Path;

use shard::command::{self, Run, Server};
use shard::{Command, Error, Reply, Request, parse_database, parse_integer};

use super::client_filter::DEFAULT_USER;
use super::persistence::timeout_ms;
use super::{About, REDIS_VERSION};
use crate::client::session::ReplyMode;
use crate::client::tracking::Tracking;
use crate::client::{Client, Connection, Stage};
use crate::mesh::{Call, SubscriptionKind};
use crate::net::listener::Endpoint;
use crate::protocol::Dialect;
use crate::shared::control::Pause;

/// The reply to a command about the connection.
pub(super) fn run<'r>(
    client: &mut Client,
    request: &Request<'r>,
    server: Server,
    about: &About<'_>,
) -> Result<Reply<'r>, Error> {
    Ok(match server {
        Server::Auth => authenticate(request)?,
        Server::ClientGetname => name(client),
        Server::ClientId => Reply::Integer(client.id as i64),
        Server::ClientNoEvict => {
            client.session.no_evict = on_or_off(request.arg(0))?;
            Reply::Ok
        }
        Server::ClientSetinfo => set_info(client, request)?,
        Server::ClientSetname => set_name(client, request)?,
        Server::Echo => Reply::bytes(request.arg(0)),
        Server::Hello => hello(client, request)?,
        Server::Ping if client.subscriptions.is_some() && client.session.dialect == Dialect::Resp2 => {
            Reply::Array(vec![Reply::bytes(b"pong"), Reply::bytes(request.args().next().unwrap_or_default())])
        }
        Server::Ping => request.args().next().map_or(Reply::Simple("PONG"), Reply::bytes),
        Server::Select => {
            client.session.database = parse_database(request.arg(0), about.shared.config.databases)?;
            Reply::Ok
        }
        Server::Quit => {
            client.stage = Stage::Closing;
            if client.session.dialect == Dialect::Text { Reply::Simple("OK goodbye") } else { Reply::Ok }
        }
        Server::Reset => {
            if std::mem::take(&mut client.session.is_counted_as_monitor) {
                about.shared.control.monitors(about.worker, false);
            }
            client.replies.unmute();
            client.session.reset();
            Reply::Simple("RESET")
        }
        _ => unreachable!("{} is not about the connection", request.command.name),
    })
}

/// `AUTH`: there is one user, who needs no password, so that any fits.
fn authenticate(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    match request.arg_count() {
        1 => Err(Error::OutOfRange(
            "AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        2 => expect_user(request.arg(0)).map(|()| Reply::Ok),
        _ => Err(Error::Syntax),
    }
}

fn expect_user(name: &[u8]) -> Result<(), Error> {
    if name == DEFAULT_USER { Ok(()) } else { Err(Error::WrongPassword) }
}

fn on_or_off(word: &[u8]) -> Result<bool, Error> {
    match word {
        on if on.eq_ignore_ascii_case(b"on") => Ok(true),
        off if off.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(Error::Syntax),
    }
}

/// What stands in the place of a name or a password where requests are shown.
const REDACTED: &[u8] = b"(redacted)";

/// The words of a request of this command, as others may see them.
pub(crate) fn without_secrets<'a>(command: &Command, mut words: Vec<&'a [u8]>) -> Vec<&'a [u8]> {
    match command.run {
        Run::Server(Server::Auth) => words[1..].fill(REDACTED),
        Run::Server(Server::Hello) => {
            let auth = words.iter().skip(2).position(|word| word.eq_ignore_ascii_case(b"AUTH"));
            if let Some(at) = auth {
                words.iter_mut().skip(2 + at + 1).take(2).for_each(|word| *word = REDACTED);
            }
        }
        _ => {}
    }
    words
}

/// The pause that a `CLIENT PAUSE` asks for.
pub(super) fn pause(request: &Request<'_>, uptime_ms: u64) -> Result<Pause, Error> {
    let is_of_all = match request.arg_count() {
        1 => true,
        2 if request.arg(1).eq_ignore_ascii_case(b"WRITE") => false,
        2 if request.arg(1).eq_ignore_ascii_case(b"ALL") => true,
        2 => return Err(Error::OutOfRange("CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_use("CLIENT", "pause")),
    };
    let timeout_ms = timeout_ms(request.arg(0))?;
    Ok(Pause { until_ms: uptime_ms.saturating_add(timeout_ms), is_of_all })
}

/// The error for too many arguments of a subcommand that takes a few more or fewer.
pub(super) fn wrong_use(container: &str, name: &str) -> Error {
    let command = command::find(container.as_bytes()).expect("it has subcommands");
    Error::WrongUse { command, name: name.as_bytes().into() }
}

/// What a `CLIENT UNBLOCK` asks of every worker.
pub(super) fn unblock(request: &Request<'_>) -> Result<Call, Error> {
    let with_error = match request.arg_count() {
        1 => false,
        2 if request.arg(1).eq_ignore_ascii_case(b"TIMEOUT") => false,
        2 if request.arg(1).eq_ignore_ascii_case(b"ERROR") => true,
        2 => return Err(Error::OutOfRange("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(wrong_use("CLIENT", "unblock")),
    };
    let client_id = parse_integer(request.arg(0)).ok_or(Error::NotAnInteger)?;
    Ok(Call::Unblock { client_id: client_id.try_into().unwrap_or(0), with_error })
}

/// `CLIENT REPLY`. Returns its reply, if there is one.
pub(super) fn set_replies(
    client: &mut Client,
    request: &Request<'_>,
) -> Result<Option<Reply<'static>>, Error> {
    let is = |word: &str| request.arg(0).eq_ignore_ascii_case(word.as_bytes());
    let session = &mut client.session;
    let reply = if is("ON") {
        client.replies.unmute();
        session.replies = ReplyMode::On;
        Some(Reply::Ok)
    } else if is("OFF") {
        client.replies.mute();
        session.replies = ReplyMode::Off;
        None
    } else if is("SKIP") {
        if session.replies != ReplyMode::Off {
            client.replies.unmute();
            session.replies = ReplyMode::SkipNext;
        }
        None
    } else {
        return Err(Error::Syntax);
    };
    session.note_care();
    Ok(reply)
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

/// What is known of a client besides what it holds itself.
pub(crate) struct Facts<'a> {
    /// The worker that serves it.
    pub shard: usize,
    /// Milliseconds from the start of the server.
    pub uptime_ms: u64,
    /// Bytes of requests that were not served yet, and room for so many more.
    pub unserved_bytes: usize,
    pub free_bytes: usize,
    /// Bytes of replies that the system has not taken, and whether there are some.
    pub unsent_bytes: usize,
    pub is_sending: bool,
    /// Where Unix sockets connect to.
    pub unix_socket: Option<&'a Path>,
}

/// A line about a client: the fields of Redis in its order, and some of kvlite's own. `events` shows whether it is read
/// from (`r`) and has yet to take what is being sent (`w`).
pub(crate) fn describe(client: &Client, facts: &Facts<'_>) -> String {
    let shown = String::from_utf8_lossy;
    let session = &client.session;
    let [peer, local] = client.addresses.text(facts.unix_socket);
    let (buffers, filled_bytes, buffer_bytes) = client.replies.buffers();
    let subscribed =
        |kind| client.subscriptions.as_ref().map_or(0, |subscriptions| subscriptions.count_of(kind));
    let waiting_bytes = client.replies.size_bytes() + facts.unsent_bytes;
    let queued_bytes = session.queue.as_ref().map_or(0, |queue| queue.size_bytes());
    let redirect =
        client.tracking.as_ref().map_or(-1, |tracking| tracking.redirect.map_or(0, |it| it.client_id));
    let request_bytes = client.job.as_ref().map_or(0, |job| job.command().full_name().len());
    format!(
        "id={} addr={peer} laddr={local} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} \
         qbuf={} qbuf-free={} argv-mem={request_bytes} multi-mem={queued_bytes} rbs={buffer_bytes} rbp={buffer_bytes} \
         obl={filled_bytes} oll={buffers} omem={waiting_bytes} tot-mem={} events={}{} cmd={} user=default redir={redirect} \
         resp={} lib-name={} lib-ver={} shard={}\n",
        client.id,
        client.addresses.descriptor,
        shown(&session.name),
        facts.uptime_ms.saturating_sub(client.since_ms) / 1000,
        client.progress.stalled_ms(facts.uptime_ms) / 1000,
        flags(client),
        session.database,
        subscribed(SubscriptionKind::Channel),
        subscribed(SubscriptionKind::Pattern),
        subscribed(SubscriptionKind::ShardChannel),
        session.queue.as_ref().map_or(-1, |queue| queue.requests().len() as i64),
        facts.unserved_bytes,
        facts.free_bytes,
        size_of::<Connection>()
            + facts.unserved_bytes
            + facts.free_bytes
            + waiting_bytes
            + buffer_bytes
            + queued_bytes,
        if client.paused { "" } else { "r" },
        if facts.is_sending { "w" } else { "" },
        client.last_command.map_or("NULL".to_owned(), Command::full_name),
        if session.dialect == Dialect::Resp3 { 3 } else { 2 },
        shown(&session.library[0]),
        shown(&session.library[1]),
        facts.shard,
    )
}

/// What a client is, a letter each.
fn flags(client: &Client) -> String {
    let session = &client.session;
    let is_tracked = |how: fn(&Tracking) -> bool| client.tracking.as_deref().is_some_and(how);
    let is_blocked = client.is_postponed || client.is_waiting();
    let flags = [
        (client.session.monitors, 'O'),
        (client.subscriptions.is_some(), 'P'),
        (session.queue.is_some(), 'x'),
        (is_blocked, 'b'),
        (client.tracking.is_some(), 't'),
        (is_tracked(|tracking| tracking.is_broken), 'R'),
        (is_tracked(|tracking| tracking.broadcasts), 'B'),
        (client.stage == Stage::Closing, 'c'),
        (client.endpoint == Endpoint::Unix, 'U'),
        (client.session.no_evict, 'e'),
    ];
    let shown: String = flags.into_iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
    if shown.is_empty() { "N".to_owned() } else { shown }
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
    let mut user = None;
    while let Some(option) = args.next() {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        if is("AUTH") && args.len() >= 2 {
            user = args.next();
            args.next();
        } else if is("SETNAME") && args.len() >= 1 {
            client.session.name = client_name(args.next().unwrap_or_default())?;
        } else {
            return Err(Error::HelloSyntax(option.into()));
        }
    }
    user.map_or(Ok(()), expect_user)?;
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
