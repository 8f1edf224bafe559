//! Scripts in Lua 5.1: the scripts and libraries that a worker knows, and the Lua state in which it runs them.
//!
//! A state is made for the first script that its worker runs, and all scripts of the worker share it, within a sandbox
//! (`sandbox.lua`). Here is no shard, no client and no other worker: what a script asks for goes to the [`Host`] that
//! runs it.

mod arguments;
mod bits;
mod engine;
pub mod file;
mod json;
pub mod libraries;
mod msgpack;
mod shebang;
mod structs;
mod values;

use std::collections::HashMap;
use std::sync::Arc;

use shard::command::Flags;
use shard::{Error, Reply, Request, parse_integer};

use crate::metrics::scripts::Usage;
pub use engine::Host;
use engine::{Compiled, Engine, Failure, Manner};
use libraries::{Libraries, Loaded};
use shebang::Shebang;

/// How many scripts are known that only `EVAL` has brought. Clients that write arguments into their scripts would fill
/// the memory of the Lua state with them.
const EVAL_SCRIPTS_MAX: usize = 500;

/// The version of Redis that scripts are told.
const REDIS_VERSION: &str = "7.0.15";

/// The SHA1 of a script, in small hexadecimal digits: its name.
pub type Sha = [u8; 40];

/// A script as its client has sent it.
#[derive(Debug)]
pub struct Script {
    /// Its name.
    pub sha: Sha,
    /// All of it.
    body: Box<[u8]>,
    /// What its first line says, and where the program begins.
    shebang: Shebang,
}

struct Known {
    script: Arc<Script>,
    /// The program, once this worker has compiled it.
    function: Option<Compiled>,
    /// The workers that this one has sent it to with a call.
    told: Vec<usize>,
    /// `SCRIPT LOAD` has named it: it stays.
    is_loaded: bool,
    /// When it was used last, in uses of scripts.
    used: u64,
}

/// The scripts and libraries that a worker knows, and its Lua state.
#[derive(Default)]
pub struct Scripts {
    engine: Option<Engine>,
    seed: u64,
    known: HashMap<Sha, Known>,
    scripts_bytes: usize,
    /// How many of the known ones `EVAL` has brought.
    eval_scripts: usize,
    /// How often scripts were used.
    uses: u64,
    libraries: Arc<Libraries>,
    loaded: Loaded,
}

/// What a client's worker finds out of a call before it runs.
#[derive(Debug)]
pub struct Prepared {
    /// A script that no worker has known.
    pub new: Option<Arc<Script>>,
}

/// An error of Redis' own words.
pub fn refusal(text: impl std::fmt::Display) -> Error {
    Error::OfScript(format!("ERR {text}").into_bytes().into())
}

fn sha_of(body: &[u8]) -> Sha {
    let mut sha = [0; 40];
    sha.copy_from_slice(sha1_smol::Sha1::from(body).digest().to_string().as_bytes());
    sha
}

fn named(name: &[u8]) -> Option<Sha> {
    Sha::try_from(name).ok().map(|sha| sha.map(|digit| digit.to_ascii_lowercase()))
}

/// Who runs a program, by the command that asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Eval,
    Evalsha,
    Fcall,
}

impl Caller {
    fn of(request: &Request<'_>) -> Caller {
        match request.command.name.as_bytes() {
            [b'F', ..] => Caller::Fcall,
            [_, _, _, _, b'S', ..] => Caller::Evalsha,
            _ => Caller::Eval,
        }
    }
}

impl Scripts {
    /// None yet, but for libraries; `seed` is for random numbers of scripts.
    pub fn new(seed: u64, libraries: Arc<Libraries>) -> Scripts {
        Scripts { seed, libraries, ..Scripts::default() }
    }

    /// All of it, for a script to run. What is left here until then knows the libraries.
    pub fn lend(&mut self) -> Scripts {
        let left = Scripts { libraries: self.libraries.clone(), ..Scripts::default() };
        std::mem::replace(self, left)
    }

    /// What there is to tell.
    pub fn usage(&self) -> Usage {
        Usage {
            lua_bytes: self.engine.as_ref().map_or(0, Engine::memory_bytes),
            scripts: self.known.len(),
            scripts_bytes: self.scripts_bytes,
            libraries: self.libraries.library_count(),
            functions: self.libraries.function_count(),
            libraries_bytes: self.libraries.bytes(),
        }
    }

    // ---- the scripts ----

    /// Whether a script of this name is known.
    pub fn knows(&self, name: &[u8]) -> bool {
        named(name).is_some_and(|sha| self.known.contains_key(&sha))
    }

    /// Takes a script that another worker has compiled, for `EVAL` or for `SCRIPT LOAD`.
    pub fn learn(&mut self, script: Arc<Script>, is_loaded: bool) {
        if self.known.contains_key(&script.sha) {
            if is_loaded {
                self.keep(&script.sha);
            }
        } else {
            self.add(script, None, is_loaded);
        }
    }

    fn add(&mut self, script: Arc<Script>, function: Option<Compiled>, is_loaded: bool) {
        self.uses += 1;
        self.scripts_bytes += script.body.len();
        self.eval_scripts += usize::from(!is_loaded);
        self.known
            .insert(script.sha, Known { script, function, told: Vec::new(), is_loaded, used: self.uses });
        if self.eval_scripts > EVAL_SCRIPTS_MAX {
            let of_eval = self.known.values().filter(|known| !known.is_loaded);
            let oldest = of_eval.min_by_key(|known| known.used).map(|known| known.script.sha);
            let forgotten = oldest.and_then(|sha| self.known.remove(&sha)).expect("there are too many");
            self.scripts_bytes -= forgotten.script.body.len();
            self.eval_scripts -= 1;
        }
    }

    /// Has a known script stay. Returns whether it could have been forgotten before.
    fn keep(&mut self, sha: &Sha) -> bool {
        let known = self.known.get_mut(sha).expect("it is known");
        let was_loaded = std::mem::replace(&mut known.is_loaded, true);
        self.eval_scripts -= usize::from(!was_loaded);
        !was_loaded
    }

    /// Notes that a known script is used. Returns whether it is known.
    fn note_use(&mut self, sha: &Sha) -> bool {
        let Some(known) = self.known.get_mut(sha) else { return false };
        self.uses += 1;
        known.used = self.uses;
        true
    }

    /// Forgets all scripts, and the state in which they ran.
    pub fn forget(&mut self) {
        self.known.clear();
        (self.scripts_bytes, self.eval_scripts) = (0, 0);
        self.engine = None;
        self.loaded = Loaded::default();
    }

    /// Compiles a script, unless it is known: for `SCRIPT LOAD` or else for `EVAL`. Returns its name, and the script if
    /// the others have to be told.
    ///
    /// # Errors
    /// It is none.
    pub fn load(&mut self, body: &[u8], is_loaded: bool) -> Result<(Sha, Option<Arc<Script>>), Error> {
        let sha = sha_of(body);
        if self.note_use(&sha) {
            let is_news = is_loaded && self.keep(&sha);
            return Ok((sha, is_news.then(|| self.known[&sha].script.clone())));
        }
        let shebang = Shebang::of_script(body)?;
        let function = self.engine()?.compile(&body[shebang.program_at..], "user_script");
        self.relieve(function.is_err());
        let function = function
            .map_err(|message| refusal(format_args!("Error compiling script (new function): {message}")))?;
        let script = Arc::new(Script { sha, body: body.into(), shebang });
        self.add(script.clone(), Some(function), is_loaded);
        Ok((sha, Some(script)))
    }

    fn engine(&mut self) -> Result<&mut Engine, Error> {
        if self.engine.is_none() {
            let engine =
                Engine::new(self.seed).map_err(|error| refusal(format_args!("no Lua state: {error}")))?;
            self.engine = Some(engine);
        }
        Ok(self.engine.as_mut().expect("it was just made"))
    }

    /// Sees to it that what runs next finds memory, if need be with a new state in place of this one.
    fn relieve(&mut self, has_failed: bool) {
        if self.engine.as_ref().is_some_and(|engine| !engine.relieve(has_failed)) {
            self.known.values_mut().for_each(|known| known.function = None);
            self.loaded = Loaded::default();
            self.engine = None;
        }
    }

    // ---- the libraries ----

    /// The libraries.
    pub fn libraries(&self) -> &Arc<Libraries> {
        &self.libraries
    }

    /// Takes other libraries in their place, unless they are older.
    pub fn set_libraries(&mut self, libraries: Arc<Libraries>) {
        if libraries.version >= self.libraries.version {
            self.libraries = libraries;
            self.loaded.keep(&self.libraries);
        }
    }

    /// Runs the code of a library, to find out what its functions are.
    ///
    /// # Errors
    /// It is no library.
    pub fn try_library(&mut self, code: &[u8], replaces: bool) -> Result<libraries::Library, Error> {
        let (name, _) = shebang::library_name(code)?;
        self.libraries.check_name(&name, replaces)?;
        let loaded = libraries::load(self.engine()?, code).map(|(library, _)| library);
        self.relieve(loaded.is_err());
        loaded
    }

    // ---- calls ----

    /// Looks at a call at its client's worker: whether it can run, and whether all workers have to be told of it.
    ///
    /// # Errors
    /// It cannot.
    pub fn prepare(&mut self, request: &Request<'_>) -> Result<Prepared, Error> {
        let caller = Caller::of(request);
        let mut new = None;
        match caller {
            Caller::Eval => {
                check_key_count(request)?;
                new = self.load(request.arg(0), false)?.1;
            }
            Caller::Evalsha => {
                let name = named(request.arg(0));
                if !name.is_some_and(|sha| self.note_use(&sha)) {
                    name.ok_or(Error::NoScript)?;
                    check_key_count(request)?;
                    return Err(Error::NoScript);
                }
                check_key_count(request)?;
            }
            Caller::Fcall => {
                if self.libraries.function(request.arg(0)).is_none() {
                    return Err(refusal("Function not found"));
                }
                check_key_count(request).map_err(|error| match error {
                    Error::NotAnInteger => refusal("Bad number of keys provided"),
                    other => other,
                })?;
            }
        }
        Ok(Prepared { new })
    }

    /// The script that a call names, if this worker has not sent that one to the other one before.
    pub fn not_told(&mut self, request: &Request<'_>, worker: usize) -> Option<Arc<Script>> {
        let sha = named(request.arg(0)).filter(|_| Caller::of(request) == Caller::Evalsha)?;
        let Known { script, told, .. } = self.known.get_mut(&sha)?;
        if told.contains(&worker) {
            return None;
        }
        told.push(worker);
        Some(script.clone())
    }

    /// Runs a call whose keys `host` has.
    pub fn run(&mut self, request: &Request<'_>, host: &mut dyn Host) -> Reply<'static> {
        let reply = self.try_run(request, host);
        self.relieve(reply.is_err());
        reply.unwrap_or_else(Reply::Error)
    }

    fn try_run(&mut self, request: &Request<'_>, host: &mut dyn Host) -> Result<Reply<'static>, Error> {
        let key_count = request.keys().count();
        let is_ro = request.command.has(Flags::READONLY);
        if Caller::of(request) == Caller::Fcall {
            return self.run_function(request, key_count, is_ro, host);
        }
        let sha = match Caller::of(request) {
            Caller::Evalsha => {
                named(request.arg(0)).filter(|sha| self.note_use(sha)).ok_or(Error::NoScript)?
            }
            _ => self.load(request.arg(0), false)?.0,
        };
        let known = &self.known[&sha];
        let shebang = known.script.shebang;
        if is_ro && shebang.is_present && !shebang.is_read_only {
            return Err(refusal("Can not execute a script with write flag using *_ro command."));
        }
        let function = match &known.function {
            Some(function) => function.clone(),
            None => {
                let script = known.script.clone();
                let program = &script.body[shebang.program_at..];
                let function = self.engine()?.compile(program, "user_script").map_err(refusal)?;
                self.known.get_mut(&sha).expect("it was just found").function = Some(function.clone());
                function
            }
        };
        let manner = Manner { is_read_only: is_ro || shebang.is_read_only, is_function: false };
        let (keys, arguments) = (request.args().skip(2).take(key_count), request.args().skip(2 + key_count));
        let engine = self.engine.as_ref().expect("a function has a state");
        let name = std::str::from_utf8(&sha).expect("hexadecimal digits are text");
        engine.run(&function, keys, arguments, manner, host).map_err(|failure| told(failure, name))
    }

    fn run_function(
        &mut self,
        request: &Request<'_>,
        key_count: usize,
        is_ro: bool,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Error> {
        let libraries = self.libraries.clone();
        let (library, info) =
            libraries.function(request.arg(0)).ok_or_else(|| refusal("Function not found"))?;
        if is_ro && !info.is_read_only() {
            return Err(refusal("Can not execute a script with write flag using *_ro command."));
        }
        self.engine()?;
        let Scripts { engine, loaded, .. } = self;
        let engine = engine.as_ref().expect("it was just made");
        let function = loaded.function(engine, library, &info.name)?;
        let manner = Manner { is_read_only: is_ro || info.is_read_only(), is_function: true };
        let (keys, arguments) = (request.args().skip(2).take(key_count), request.args().skip(2 + key_count));
        engine.run(&function, keys, arguments, manner, host).map_err(|failure| told(failure, &info.name))
    }
}

/// Whether the number of keys is one, and there are as many arguments.
fn check_key_count(request: &Request<'_>) -> Result<(), Error> {
    let count = parse_integer(request.arg(1)).ok_or(Error::NotAnInteger)?;
    match usize::try_from(count) {
        Err(_) => Err(Error::OutOfRange("Number of keys can't be negative")),
        Ok(count) if count > request.arg_count() - 2 => {
            Err(Error::OutOfRange("Number of keys can't be greater than number of args"))
        }
        Ok(_) => Ok(()),
    }
}

/// What a script ended with, as its client is told.
fn told(failure: Failure, name: &str) -> Error {
    let mut text = failure.text;
    if let Some((source, line)) = failure.place {
        text.extend_from_slice(format!(" script: {name}, on {source}:{line}.").as_bytes());
    }
    Error::OfScript(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_scripts_that_eval_brings_the_last_ones_stay_and_those_that_were_loaded() {
        let mut scripts = Scripts::default();
        let body = |number: usize| format!("return {number}").into_bytes();
        let (first, _) = scripts.load(&body(0), false).unwrap();
        assert!(scripts.load(&body(0), false).unwrap().1.is_none());
        assert!(scripts.load(&body(0), true).unwrap().1.is_some(), "the others are told that it stays");
        assert!(scripts.load(&body(0), true).unwrap().1.is_none());
        let (used, _) = scripts.load(&body(1), false).unwrap();
        let (unused, _) = scripts.load(&body(2), false).unwrap();
        for number in 3..EVAL_SCRIPTS_MAX + 2 {
            scripts.load(&body(number), false).unwrap();
            scripts.load(&body(1), false).unwrap();
        }
        assert_eq!([first, used, unused].map(|sha| scripts.knows(&sha)), [true, true, false]);
        assert_eq!(scripts.usage().scripts, EVAL_SCRIPTS_MAX + 1);
        scripts.forget();
        assert_eq!((scripts.usage().scripts_bytes, scripts.eval_scripts), (0, 0));
    }
}
