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
}

/// The scripts and libraries that a worker knows, and its Lua state.
#[derive(Default)]
pub struct Scripts {
    engine: Option<Engine>,
    seed: u64,
    known: HashMap<Sha, Known>,
    scripts_bytes: usize,
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

    /// Takes a script that another worker has compiled.
    pub fn learn(&mut self, script: Arc<Script>) {
        if !self.known.contains_key(&script.sha) {
            self.scripts_bytes += script.body.len();
            self.known.insert(script.sha, Known { script, function: None });
        }
    }

    /// Forgets all scripts, and the state in which they ran.
    pub fn forget(&mut self) {
        self.known.clear();
        self.scripts_bytes = 0;
        self.engine = None;
        self.loaded = Loaded::default();
    }

    /// Compiles a script, unless it is known. Returns its name, and the script if it is new.
    ///
    /// # Errors
    /// It is none.
    pub fn load(&mut self, body: &[u8]) -> Result<(Sha, Option<Arc<Script>>), Error> {
        let sha = sha_of(body);
        if self.known.contains_key(&sha) {
            return Ok((sha, None));
        }
        let shebang = Shebang::of_script(body)?;
        let function = self.engine()?.compile(&body[shebang.program_at..], "user_script");
        self.relieve(function.is_err());
        let function = function
            .map_err(|message| refusal(format_args!("Error compiling script (new function): {message}")))?;
        let script = Arc::new(Script { sha, body: body.into(), shebang });
        self.scripts_bytes += body.len();
        self.known.insert(sha, Known { script: script.clone(), function: Some(function) });
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
                new = self.load(request.arg(0))?.1;
            }
            Caller::Evalsha => {
                if !self.knows(request.arg(0)) {
                    named(request.arg(0)).ok_or(Error::NoScript)?;
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
                named(request.arg(0)).filter(|sha| self.known.contains_key(sha)).ok_or(Error::NoScript)?
            }
            _ => self.load(request.arg(0))?.0,
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
