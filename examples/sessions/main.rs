//! Sessions that live while they are used, end at last, and are over at once when the user logs out.
//!
//! `cargo run --example sessions -- --url redis://127.0.0.1:6379`
//!
//! Times are short here, so that it ends soon: say 30 minutes for `IDLE_MS` and 12 hours for `WHOLE_MS`.

#[path = "../run/mod.rs"]
mod run;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, cmd, pipe};
use run::{Run, exists, now_ms, random, say, wait_until};

const IDLE_MS: u64 = 1500;
const WHOLE_MS: u64 = 4000;
const MINUTE_MS: u64 = 60_000;
const BETWEEN_USES: Duration = Duration::from_millis(100);

/// The sessions of a site. A session is the key `session:USER:RANDOM`, whose deadline is the end of its rest. Its value
/// is what has to be true for it to count: the time of its absolute end, and the generation of the user's sessions.
struct Sessions<'a> {
    run: &'a Run,
    /// For how long a session may rest.
    idle_ms: u64,
    /// How old it may become, however much it is used.
    whole_ms: u64,
}

impl Sessions<'_> {
    fn log_in(&self, connection: &mut Connection, user: &str) -> RedisResult<String> {
        let generation: Option<u64> = cmd("GET").arg(self.generation(user)).query(connection)?;
        let session = self.run.key(format!("session:{user}:{:016x}", random()));
        let value = format!("{} {}", now_ms() + self.whole_ms, generation.unwrap_or(0));
        cmd("SET").arg((&session, value, "PX", self.idle_ms)).exec(connection)?;
        Ok(session)
    }

    /// Uses a session; says whether it counts. `GETEX` reads and renews in one step and makes nothing: a session that
    /// was logged out a moment ago stays so.
    fn is_logged_in(&self, connection: &mut Connection, user: &str, session: &str) -> RedisResult<bool> {
        let (value, generation): (Option<String>, Option<u64>) = pipe()
            .cmd("GETEX")
            .arg((session, "PX", self.idle_ms))
            .cmd("GET")
            .arg(self.generation(user))
            .query(connection)?;
        let Some(value) = value else { return Ok(false) };
        let (end_ms, of_generation) = value.split_once(' ').expect("a session's value has two parts");
        let counts = end_ms.parse().is_ok_and(|end_ms: u64| now_ms() < end_ms)
            && of_generation.parse() == Ok(generation.unwrap_or(0));
        if !counts {
            cmd("DEL").arg(session).exec(connection)?; // Its memory need not wait for the end of the rest.
        }
        Ok(counts)
    }

    fn log_out(&self, connection: &mut Connection, session: &str) -> RedisResult<()> {
        cmd("DEL").arg(session).exec(connection)
    }

    /// Ends all sessions of a user in one step, those of a log-in that is just under way too. (A walk over them with
    /// `SCAN` and `DEL` may miss one that begins meanwhile.)
    fn log_out_everywhere(&self, connection: &mut Connection, user: &str) -> RedisResult<()> {
        cmd("INCR").arg(self.generation(user)).exec(connection)
    }

    /// The sessions of a user, to be shown. `SCAN` visits every key of the server, bit by bit: it is for the page that a
    /// user opens once a year, not for each request.
    fn of(&self, connection: &mut Connection, user: &str) -> RedisResult<Vec<String>> {
        let (mut cursor, mut sessions) = (0_u64, Vec::new());
        let pattern = self.run.key(format!("session:{user}:*"));
        loop {
            let (next, keys): (u64, Vec<String>) =
                cmd("SCAN").arg((cursor, "MATCH", &pattern, "COUNT", 1000)).query(connection)?;
            sessions.extend(keys);
            cursor = next;
            if cursor == 0 {
                sessions.sort_unstable();
                sessions.dedup(); // SCAN may show a key twice.
                return Ok(sessions);
            }
        }
    }

    fn generation(&self, user: &str) -> String {
        self.run.key(format!("user:{user}:generation"))
    }
}

fn main() -> ExitCode {
    run::main("sessions", |run| {
        naive_ttl(run)?;
        idle_ttl(run)?;
        absolute_end(run)?;
        log_out(run)?;
        every_session_of_a_user(run)
    })
}

fn naive_ttl(run: &Run) -> RedisResult<()> {
    say!("\nThe naive session: a TTL of {IDLE_MS} ms at the log-in, and GET with each use.");
    let (connection, session, begin) = (&mut run.connect()?, run.key("naive"), Instant::now());
    cmd("SET").arg((&session, "ada", "PX", IDLE_MS)).exec(connection)?;
    wait_until(|| {
        let user: Option<String> = cmd("GET").arg(&session).query(connection)?; // One use after the other.
        Ok(user.is_none())
    })?;
    let lived_ms = begin.elapsed().as_millis();
    run.check(true, format!("an active user is thrown out after {lived_ms} ms, in the middle of it"));
    Ok(())
}

fn idle_ttl(run: &Run) -> RedisResult<()> {
    say!(
        "\nAn idle TTL: each use renews it (GETEX). Eight users who are active for twice as long, and one who rests."
    );
    let sessions = Sessions { run, idle_ms: IDLE_MS, whole_ms: MINUTE_MS };
    let connection = &mut run.connect()?;
    let resting = sessions.log_in(connection, "rest")?;
    let were_in_time = run.at_once(8, |number, connection| {
        let user = format!("user{number}");
        let session = sessions.log_in(connection, &user)?;
        let (begin, mut last) = (Instant::now(), Instant::now());
        while begin.elapsed() < Duration::from_millis(2 * IDLE_MS) {
            thread::sleep(BETWEEN_USES); // The user reads.
            let use_begins = Instant::now();
            let is_in = sessions.is_logged_in(connection, &user, &session)?;
            // A machine that stands still for about so long makes it an idle session, and then it rightly ends.
            if !is_in {
                return Ok(last.elapsed() >= Duration::from_millis(IDLE_MS * 9 / 10));
            }
            last = use_begins;
        }
        Ok(true)
    })?;
    run.check(were_in_time.iter().all(|in_time| *in_time), "no session has ended that was in use");
    wait_until(|| Ok(!exists(connection, &resting)?))?;
    run.check(
        !sessions.is_logged_in(connection, "rest", &resting)?,
        "the one that was not used is gone, by itself",
    );
    Ok(())
}

fn absolute_end(run: &Run) -> RedisResult<()> {
    say!(
        "\nAn absolute end, {WHOLE_MS} ms after the log-in: it stands in the value, where no renewal reaches it."
    );
    let sessions = Sessions { run, idle_ms: IDLE_MS, whole_ms: WHOLE_MS };
    let (connection, begin) = (&mut run.connect()?, Instant::now());
    let session = sessions.log_in(connection, "ada")?;
    wait_until(|| Ok(!sessions.is_logged_in(connection, "ada", &session)?))?;
    let lived = begin.elapsed();
    let lived_ms = lived.as_millis();
    run.check(
        lived > Duration::from_millis(IDLE_MS),
        format!("used all the time, it has ended after {lived_ms} ms"),
    );
    run.check(!exists(connection, &session)?, "and its key is gone");
    Ok(())
}

fn log_out(run: &Run) -> RedisResult<()> {
    say!("\nLog-out while another request of the same user is under way.");
    let sessions = Sessions { run, idle_ms: MINUTE_MS, whole_ms: MINUTE_MS };
    let connection = &mut run.connect()?;

    let session = sessions.log_in(connection, "ada")?;
    let value: String = cmd("GET").arg(&session).query(connection)?; // A request reads the session,
    sessions.log_out(connection, &session)?; //                         the user logs out,
    cmd("SET").arg((&session, value, "PX", MINUTE_MS)).exec(connection)?; // and the request renews it.
    let is_back = sessions.is_logged_in(connection, "ada", &session)?;
    run.check(is_back, "naive: renewed by SET, a session is back after its log-out");

    let session = sessions.log_in(connection, "ada")?;
    sessions.log_out(connection, &session)?;
    let is_back = sessions.is_logged_in(connection, "ada", &session)?;
    run.check(!is_back && !exists(connection, &session)?, "renewed by GETEX, it stays gone");
    Ok(())
}

fn every_session_of_a_user(run: &Run) -> RedisResult<()> {
    say!("\nAll sessions of a user: to show them, and to end them all.");
    let sessions = Sessions { run, idle_ms: MINUTE_MS, whole_ms: MINUTE_MS };
    let connection = &mut run.connect()?;
    let other = sessions.log_in(connection, "bob")?;
    let of_eve = run.at_once(8, |_, connection| sessions.log_in(connection, "eve"))?;
    let shown = sessions.of(connection, "eve")?;
    let all_are_there = of_eve.iter().all(|session| shown.contains(session));
    run.check(
        all_are_there && shown.len() == 8,
        format!("SCAN shows the {} that eve has begun", shown.len()),
    );

    sessions.log_out_everywhere(connection, "eve")?;
    let are_in =
        run.at_once(8, |number, connection| sessions.is_logged_in(connection, "eve", &of_eve[number]))?;
    run.check(!are_in.contains(&true), "one INCR of the user's generation, and none of them counts any more");
    let again = sessions.log_in(connection, "eve")?;
    run.check(sessions.is_logged_in(connection, "eve", &again)?, "a new log-in does");
    run.check(sessions.is_logged_in(connection, "bob", &other)?, "those of others are as they were");
    Ok(())
}
