//! One Lua state: how scripts find it, how they are compiled and run in it, and what ends them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{
    ChunkMode, Debug as Frame, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value,
    Variadic, VmState,
};
use shard::command::{self, Flags};
use shard::{Command, Error, Reply, Request, Span};

use super::arguments::type_name;
use super::values::{error_text, format_general, text_of, to_lua, to_reply};
use super::{bits, json, libraries, msgpack, structs};
use crate::protocol;

/// The most memory that the Lua state of a worker takes, in bytes. A script that needs more ends with an error.
const MEMORY_MAX: usize = 512 << 20;

/// After so many instructions it is looked whether a script takes long, or is to be killed.
const INSTRUCTIONS_PER_LOOK: u32 = 10_000;

/// The same after so many commands, of which one takes as long as many instructions.
const CALLS_PER_LOOK: u32 = 16;

/// The most values that a function returns at once. Each that is given to a function of the engine takes one of the 8,000
/// places that Lua has for them, and where none is left the process ends: the rest is for arguments beside such values.
pub(super) const VALUES_MAX: usize = 7_600;

/// Patterns with repeated parts may be so long, in bytes: a worker's stack has room for several times as many.
const PATTERN_BYTES_MAX: usize = 128 << 10;

/// A library takes no longer to be loaded: it runs nothing but what registers its functions.
const LOAD_TIMEOUT: Duration = Duration::from_millis(500);

/// How many frames of the stack are looked through for one of a script.
const FRAMES_MAX: usize = 16;

/// What is kept of the memory for the arguments of commands, in bytes.
const ARGUMENTS_KEPT_BYTES: usize = 64 << 10;

/// The name of the functions around Lua's own ones that the sandbox brings, in messages of Lua.
const SANDBOX: &str = "sandbox";

/// What a script asks of the worker that runs it.
pub trait Host {
    /// Runs a command that the table knows, with as many arguments as it takes, and shows its reply.
    fn run(&mut self, request: &Request<'_>, show: &mut dyn FnMut(&Reply<'_>));

    /// The script has taken many instructions since it was asked last. Returns whether it has to end.
    fn look_up(&mut self) -> bool;
}

scoped_tls_hkt::scoped_thread_local!(static mut HOST: for<'a> &'a mut (dyn Host + 'a));

/// What a state knows of the script that runs in it.
#[derive(Default)]
pub(super) struct State {
    is_resp3: Cell<bool>,
    is_read_only: Cell<bool>,
    is_killed: Cell<bool>,
    /// When the library that is being loaded has to have ended.
    load_ends: Cell<Option<Instant>>,
    /// How many commands scripts have called.
    calls: Cell<u32>,
    failure: RefCell<Option<Failure>>,
    arguments: RefCell<(Vec<u8>, Vec<Span>)>,
    /// The tables that scripts may read and not change, by their places.
    read_only: RefCell<Vec<usize>>,
    random: Cell<u64>,
    /// What the library that is being loaded has registered.
    pub(super) registered: RefCell<BTreeMap<String, libraries::Registered>>,
}

/// Why a script has ended before its end, and where.
#[derive(Debug)]
pub struct Failure {
    /// The error, with its code.
    pub text: Vec<u8>,
    /// The name and the line of the script, if it is known.
    pub place: Option<(String, usize)>,
}

/// What a script is stopped with. It is an object of its own until the script catches it.
#[derive(Debug)]
pub(super) enum Raised {
    /// An error as a reply has it, with its code.
    Reply(Vec<u8>),
    /// As Lua's own, with the place where it happened in front.
    Text(String),
    /// The script was killed.
    Killed,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raised::Reply(text) => f.write_str(&String::from_utf8_lossy(text)),
            Raised::Text(text) => f.write_str(text),
            Raised::Killed => f.write_str("killed"),
        }
    }
}

impl std::error::Error for Raised {}

/// An error with a reply's text, which gets the general code.
pub(super) fn reply_error(text: &str) -> mlua::Error {
    mlua::Error::external(Raised::Reply(format!("ERR {text}").into_bytes()))
}

/// The error for a text that Lua's memory would not hold, before that is taken from the process.
pub(super) fn check_room(text_bytes: usize) -> mlua::Result<()> {
    match text_bytes > MEMORY_MAX {
        true => Err(mlua::Error::MemoryError("not enough memory".to_owned())),
        false => Ok(()),
    }
}

/// An error as a function of Lua's own raises it: with the place of its caller in front.
pub(super) fn lua_error(lua: &Lua, text: &str) -> mlua::Error {
    let place = lua.inspect_stack(1, place_of).flatten();
    let before =
        place.map_or(String::new(), |(source, line)| format!("{}:{line}: ", source.trim_start_matches('@')));
    mlua::Error::external(Raised::Text(before + text))
}

/// The name and the line of what runs in a frame, unless it is no Lua.
fn place_of(frame: &Frame<'_>) -> Option<(String, usize)> {
    let source = frame.source().source?.into_owned();
    Some((source, frame.current_line()?))
}

/// The nearest frame of a script.
fn script_place(lua: &Lua) -> Option<(String, usize)> {
    (1..FRAMES_MAX).find_map(|level| {
        lua.inspect_stack(level, place_of)
            .flatten()
            .filter(|(source, _)| source.trim_start_matches(['=', '@']) != SANDBOX)
    })
}

fn raised(error: &mlua::Error) -> Option<&Raised> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised(cause),
        mlua::Error::WithContext { cause, .. } => raised(cause),
        mlua::Error::ExternalError(error) => error.downcast_ref(),
        _ => None,
    }
}

/// A function of a script or a library, which its state holds for as long as there is one of these.
#[derive(Clone)]
pub struct Compiled(Rc<Place>);

/// Where a function is held.
struct Place {
    number: usize,
    left: Rc<RefCell<Vec<usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.left.borrow_mut().push(self.number);
    }
}

/// The functions that a state holds, in a table of it: with a handle for each it had room for less than 8,000.
pub(super) struct Held {
    functions: Table,
    /// How many places there are.
    count: Cell<usize>,
    /// Those whose functions are needed no more.
    left: Rc<RefCell<Vec<usize>>>,
    /// Those that are empty.
    free: RefCell<Vec<usize>>,
}

impl Held {
    fn new(lua: &Lua) -> mlua::Result<Held> {
        let (left, free) = (Rc::default(), RefCell::default());
        Ok(Held { functions: lua.create_table()?, count: Cell::new(0), left, free })
    }

    /// Holds a function.
    pub(super) fn hold(&self, function: &Function) -> mlua::Result<Compiled> {
        self.let_go()?;
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.count.set(self.count.get() + 1);
            self.count.get()
        });
        let place = Place { number, left: self.left.clone() };
        self.functions.raw_set(number, function)?;
        Ok(Compiled(Rc::new(place)))
    }

    fn let_go(&self) -> mlua::Result<()> {
        while let Some(number) = self.left.borrow_mut().pop() {
            self.functions.raw_set(number, Value::Nil)?;
            self.free.borrow_mut().push(number);
        }
        Ok(())
    }

    fn get(&self, compiled: &Compiled) -> mlua::Result<Function> {
        self.let_go()?;
        self.functions.raw_get(compiled.0.number)
    }
}

/// A Lua state for scripts.
pub struct Engine {
    lua: Lua,
    pub(super) state: Rc<State>,
    held: Rc<Held>,
    run_script: Function,
    run_function: Function,
    run_library: Function,
}

/// How a script runs.
#[derive(Clone, Copy)]
pub struct Manner {
    /// It may change no key.
    pub is_read_only: bool,
    /// It is a function of a library.
    pub is_function: bool,
}

impl Engine {
    /// A state in which nothing has run yet; `seed` is for its random numbers.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(seed: u64) -> mlua::Result<Engine> {
        let libs = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libs, LuaOptions::new().catch_rust_panics(false))?;
        lua.set_memory_limit(MEMORY_MAX)?;
        let state = Rc::new(State { random: Cell::new(seed), ..State::default() });
        let held = Rc::new(Held::new(&lua)?);
        let native = natives(&lua, &state)?;
        let libraries = lua.create_table()?;
        libraries.raw_set("bit", bits::table(&lua)?)?;
        libraries.raw_set("cjson", json::table(&lua)?)?;
        libraries.raw_set("cmsgpack", msgpack::table(&lua)?)?;
        libraries.raw_set("struct", structs::table(&lua)?)?;
        libraries.raw_set("redis_of_scripts", redis_table(&lua, &state, true)?)?;
        libraries.raw_set("redis_of_functions", redis_table(&lua, &state, false)?)?;
        libraries.raw_set("redis_of_libraries", libraries::table(&lua, &state, &held)?)?;
        let sandbox = lua.load(include_str!("sandbox.lua")).set_name(format!("={SANDBOX}"));
        let (globals, run_script, run_function, run_library): (Table, Function, Function, Function) =
            sandbox.call((native, libraries))?;
        lua.set_globals(globals)?;
        let of_hook = state.clone();
        let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK);
        lua.set_global_hook(triggers, move |_, _| {
            look_up(&of_hook)?;
            Ok(VmState::Continue)
        })?;
        Ok(Engine { lua, state, held, run_script, run_function, run_library })
    }

    /// The memory that the state has taken, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    /// Frees what no script needs any more if there is much of it: Lua does not by itself where the memory has run out.
    /// Returns whether the state can be used on: it cannot where what is needed leaves little room.
    pub fn relieve(&self, has_failed: bool) -> bool {
        let much = if has_failed { MEMORY_MAX / 4 } else { MEMORY_MAX / 4 * 3 };
        if self.lua.used_memory() < much {
            return true;
        }
        self.state.failure.take();
        let _ = self.lua.set_memory_limit(0); // The collector may take memory to give back more.
        let collected = self.held.let_go().and_then(|()| self.lua.gc_collect());
        let collected = collected.and_then(|()| self.lua.gc_collect());
        let limited = self.lua.set_memory_limit(MEMORY_MAX);
        collected.is_ok() && limited.is_ok() && self.lua.used_memory() < MEMORY_MAX / 4 * 3
    }

    /// Compiles a program; `name` stands in its messages.
    ///
    /// # Errors
    /// Lua's message.
    pub fn compile(&self, program: &[u8], name: &str) -> Result<Compiled, String> {
        let chunk = self.lua.load(program).set_name(format!("@{name}")).set_mode(ChunkMode::Text);
        let compiled = chunk.into_function().and_then(|function| self.held.hold(&function));
        compiled.map_err(|error| match error {
            mlua::Error::SyntaxError { message, .. } => message,
            other => message(&other),
        })
    }

    /// Runs what was compiled. Returns the reply, or why it has ended.
    ///
    /// # Errors
    /// The script's.
    pub fn run<'a>(
        &self,
        function: &Compiled,
        keys: impl ExactSizeIterator<Item = &'a [u8]>,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        manner: Manner,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Failure> {
        let state = &self.state;
        state.is_read_only.set(manner.is_read_only);
        state.is_resp3.set(false);
        state.is_killed.set(false);
        let run = if manner.is_function { &self.run_function } else { &self.run_script };
        let lists = self.list(keys).and_then(|keys| Ok((keys, self.list(arguments)?)));
        let ran = lists.and_then(|(keys, arguments)| {
            let function = self.held.get(function)?;
            HOST.set(host, || run.call::<(bool, Value)>((function, keys, arguments)))
        });
        match ran {
            Ok((true, value)) => match to_reply(&value, state.is_resp3.get()) {
                Ok(reply) => Ok(reply),
                Err(error) => Err(failure_of(&error)),
            },
            Ok((false, _)) => Err(self.taken_failure()),
            Err(error) => Err(failure_of(&error)),
        }
    }

    /// Runs the program of a library, which registers its functions.
    ///
    /// # Errors
    /// What it ended with.
    pub fn run_library(&self, program: &Compiled) -> Result<(), Failure> {
        self.state.is_killed.set(false);
        self.state.load_ends.set(Some(Instant::now() + LOAD_TIMEOUT));
        let program = self.held.get(program);
        let ran = program.and_then(|program| self.run_library.call::<(bool, Value)>(program));
        self.state.load_ends.set(None);
        match ran {
            Ok((true, _)) => Ok(()),
            Ok((false, _)) => Err(self.taken_failure()),
            Err(error) => Err(failure_of(&error)),
        }
    }

    fn taken_failure(&self) -> Failure {
        let failure = self.state.failure.borrow_mut().take();
        failure.unwrap_or_else(|| Failure { text: b"ERR not enough memory".to_vec(), place: None })
    }

    fn list<'a>(&self, items: impl ExactSizeIterator<Item = &'a [u8]>) -> mlua::Result<Table> {
        let list = self.lua.create_table_with_capacity(items.len(), 0)?;
        for (index, item) in items.enumerate() {
            list.raw_set(index + 1, self.lua.create_string(item)?)?;
        }
        Ok(list)
    }
}

fn failure_of(error: &mlua::Error) -> Failure {
    let text = match raised(error) {
        Some(Raised::Reply(text)) => text.clone(),
        _ => format!("ERR {}", message(error)).into_bytes(),
    };
    Failure { text, place: None }
}

/// Has the worker look after others while a script runs, which may have to end.
fn look_up(state: &State) -> mlua::Result<()> {
    let takes_long = || state.load_ends.get().is_some_and(|end| end <= Instant::now());
    if state.is_killed.get() || takes_long() || HOST.is_set() && HOST.with(|host| host.look_up()) {
        state.is_killed.set(true);
        return Err(mlua::Error::external(Raised::Killed));
    }
    Ok(())
}

/// Whether this stands for a table that scripts may not change.
fn is_read_only(state: &State, table: &Table) -> bool {
    state.read_only.borrow().contains(&(table.to_pointer() as usize))
}

/// What the sandbox calls.
fn natives(lua: &Lua, state: &Rc<State>) -> mlua::Result<Table> {
    const READ_ONLY: &str = "Attempt to modify a readonly table";
    let native = lua.create_table()?;
    native.raw_set("values_max", VALUES_MAX)?;
    native.raw_set("pattern_bytes_max", PATTERN_BYTES_MAX)?;
    let of = state.clone();
    native.raw_set(
        "mark_read_only",
        lua.create_function(move |_, table: Table| {
            of.read_only.borrow_mut().push(table.to_pointer() as usize);
            Ok(())
        })?,
    )?;
    native.raw_set(
        "refuse_change",
        lua.create_function(|lua, _: MultiValue| -> mlua::Result<()> { Err(lua_error(lua, READ_ONLY)) })?,
    )?;
    native.raw_set(
        "refuse_change_of_list",
        lua.create_function(|_, ()| -> mlua::Result<()> {
            Err(mlua::Error::external(Raised::Text(READ_ONLY.into())))
        })?,
    )?;
    native.raw_set(
        "refuse_missing",
        lua.create_function(|lua, (_, name): (Value, Value)| -> mlua::Result<()> {
            let name = String::from_utf8_lossy(&text_of(&name).unwrap_or_default()).into_owned();
            Err(lua_error(lua, &format!("Script attempted to access nonexistent global variable '{name}'")))
        })?,
    )?;
    let of = state.clone();
    native.raw_set(
        "setmetatable",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let Some(Value::Table(table)) = args.first() else {
                let got = args.first().map_or("no value", type_name);
                return Err(lua_error(
                    lua,
                    &format!("bad argument #1 to 'setmetatable' (table expected, got {got})"),
                ));
            };
            let metatable = match args.get(1) {
                Some(Value::Table(metatable)) => Some(metatable.clone()),
                Some(Value::Nil) => None,
                _ => return Err(lua_error(lua, "bad argument #2 to 'setmetatable' (nil or table expected)")),
            };
            if is_read_only(&of, table) {
                return Err(mlua::Error::external(Raised::Text(READ_ONLY.into())));
            }
            if let Some(present) = table.metatable()
                && present.raw_get::<Value>("__metatable")? != Value::Nil
            {
                return Err(lua_error(lua, "cannot change a protected metatable"));
            }
            table.set_metatable(metatable)?;
            Ok(table.clone())
        })?,
    )?;
    let of = state.clone();
    native.raw_set(
        "rawset",
        lua.create_function(move |lua, (table, name, value): (Value, Value, Value)| {
            let Value::Table(table) = table else {
                let got = type_name(&table);
                return Err(lua_error(
                    lua,
                    &format!("bad argument #1 to 'rawset' (table expected, got {got})"),
                ));
            };
            if is_read_only(&of, &table) {
                return Err(mlua::Error::external(Raised::Text(READ_ONLY.into())));
            }
            table.raw_set(name, value)?;
            Ok(table)
        })?,
    )?;
    let of = state.clone();
    native.raw_set("is_killed", lua.create_function(move |_, ()| Ok(of.is_killed.get()))?)?;
    let of = state.clone();
    native.raw_set(
        "end_if_killed",
        lua.create_function(move |_, ()| match of.is_killed.get() {
            true => Err(mlua::Error::external(Raised::Killed)),
            false => Ok(()),
        })?,
    )?;
    native.raw_set(
        "caught",
        lua.create_function(|lua, failure: Value| match &failure {
            Value::Error(error) => match raised(error) {
                Some(Raised::Killed) => Err(mlua::Error::external(Raised::Killed)),
                Some(Raised::Reply(text)) => lua.create_string(text).map(Value::String),
                Some(Raised::Text(text)) => lua.create_string(text).map(Value::String),
                None => lua.create_string(message(error)).map(Value::String),
            },
            Value::Table(table) => match table.raw_get("err")? {
                Value::String(text) => Ok(Value::String(text)),
                _ => Ok(failure),
            },
            Value::String(text) => lua.create_string(placed(lua, &text.as_bytes())).map(Value::String),
            _ => Ok(failure),
        })?,
    )?;
    native.raw_set(
        "raised",
        lua.create_function(|lua, failure: Value| match &failure {
            Value::Error(error) => match raised(error) {
                Some(Raised::Killed) => Err(mlua::Error::external(Raised::Killed)),
                Some(Raised::Reply(text)) => {
                    let table = lua.create_table_with_capacity(0, 1)?;
                    table.raw_set("err", lua.create_string(text)?)?;
                    Ok(Value::Table(table))
                }
                Some(Raised::Text(text)) => lua.create_string(text).map(Value::String),
                None => lua.create_string(message(error)).map(Value::String),
            },
            Value::String(text) => lua.create_string(placed(lua, &text.as_bytes())).map(Value::String),
            _ => Ok(failure),
        })?,
    )?;
    let of = state.clone();
    native.raw_set(
        "failed",
        lua.create_function(move |lua, failure: Value| {
            let code = |text: &[u8]| [b"ERR ", text].concat();
            let text = match &failure {
                Value::Error(error) => match raised(error) {
                    Some(Raised::Reply(text)) => text.clone(),
                    Some(Raised::Text(text)) => code(text.as_bytes()),
                    Some(Raised::Killed) if of.load_ends.get().is_some() => {
                        b"ERR FUNCTION LOAD timeout".to_vec()
                    }
                    Some(Raised::Killed) => b"ERR Script killed by user with SCRIPT KILL...".to_vec(),
                    None => code(message(error).as_bytes()),
                },
                Value::Table(table) => match text_of(&table.raw_get("err")?) {
                    Some(text) => text,
                    None => code(b"unknown error"),
                },
                Value::String(text) => code(&placed(lua, &text.as_bytes())),
                Value::Nil => code(b"nil"),
                Value::Boolean(yes) => code(yes.to_string().as_bytes()),
                other => code(&text_of(other).unwrap_or_else(|| other.type_name().into())),
            };
            of.failure.replace(Some(Failure { text, place: script_place(lua) }));
            Ok(())
        })?,
    )?;
    let of = state.clone();
    native.raw_set(
        "random",
        lua.create_function(move |lua, bounds: Variadic<f64>| {
            const MAX: u64 = i32::MAX as u64;
            let next = of.random.get().wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & ((1 << 48) - 1);
            of.random.set(next);
            let share = ((next >> 17) % MAX) as f64 / MAX as f64;
            let (low, high) = match bounds[..] {
                [] => return Ok(share),
                [high] if high < 1.0 => {
                    return Err(lua_error(lua, "bad argument #1 to 'random' (interval is empty)"));
                }
                [high] => (1.0, high.trunc()),
                [low, high] if low > high => {
                    return Err(lua_error(lua, "bad argument #2 to 'random' (interval is empty)"));
                }
                [low, high] => (low.trunc(), high.trunc()),
                _ => return Err(lua_error(lua, "wrong number of arguments")),
            };
            Ok((share * (high - low + 1.0)).floor() + low)
        })?,
    )?;
    let of = state.clone();
    native.raw_set(
        "randomseed",
        lua.create_function(move |_, seed: f64| {
            of.random.set(u64::from(seed as i64 as u32) << 16 | 0x330E);
            Ok(())
        })?,
    )?;
    Ok(native)
}

/// Lua's message of an error that is none of this room's.
fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => message(cause),
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A message of Lua, with the place of the script instead of one of the sandbox.
fn placed(lua: &Lua, text: &[u8]) -> Vec<u8> {
    let Some(rest) = text.strip_prefix(SANDBOX.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else {
        return text.to_vec();
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest[digits..].strip_prefix(b": ").unwrap_or(rest);
    match script_place(lua) {
        Some((source, line)) => {
            [format!("{}:{line}: ", source.trim_start_matches('@')).as_bytes(), rest].concat()
        }
        None => rest.to_vec(),
    }
}

/// The table `redis` of scripts, or of functions.
fn redis_table(lua: &Lua, state: &Rc<State>, is_of_scripts: bool) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    for (name, is_raised) in [("call", true), ("pcall", false)] {
        let of = state.clone();
        let call = move |lua: &Lua, args: MultiValue| match call(lua, &of, &args) {
            Ok(value) => Ok(value),
            Err(CallError::Lua(error)) => Err(error),
            Err(CallError::Reply(text)) if is_raised => Err(mlua::Error::external(Raised::Reply(text))),
            Err(CallError::Reply(text)) => error_table(lua, &text),
        };
        redis.raw_set(name, lua.create_function(call)?)?;
    }
    redis.raw_set(
        "error_reply",
        lua.create_function(|lua, args: Variadic<Value>| {
            let [Value::String(text)] = &args[..] else {
                return error_table(lua, b"ERR wrong number or type of arguments");
            };
            let text = text.as_bytes();
            let text = text.strip_prefix(b"-").unwrap_or(&text);
            let code: &[u8] = if text.contains(&b' ') { b"" } else { b"ERR " };
            error_table(lua, &[code, text].concat())
        })?,
    )?;
    redis.raw_set(
        "status_reply",
        lua.create_function(|lua, args: Variadic<Value>| {
            let [Value::String(text)] = &args[..] else {
                return error_table(lua, b"ERR wrong number or type of arguments");
            };
            let table = lua.create_table_with_capacity(0, 1)?;
            table.raw_set("ok", text)?;
            Ok(Value::Table(table))
        })?,
    )?;
    redis.raw_set(
        "sha1hex",
        lua.create_function(|lua, args: Variadic<Value>| {
            let [value] = &args[..] else { return Err(reply_error("wrong number of arguments")) };
            let text = text_of(value).unwrap_or_default();
            lua.create_string(sha1_smol::Sha1::from(text).digest().to_string())
        })?,
    )?;
    let of = state.clone();
    redis.raw_set(
        "setresp",
        lua.create_function(move |_, args: Variadic<Value>| {
            let [version] = &args[..] else {
                return Err(reply_error("redis.setresp() requires one argument."));
            };
            let version = text_of(version).unwrap_or_default();
            if version != b"2" && version != b"3" {
                return Err(reply_error("RESP version must be 2 or 3."));
            }
            of.is_resp3.set(version == b"3");
            Ok(())
        })?,
    )?;
    redis.raw_set(
        "set_repl",
        lua.create_function(|_, args: Variadic<Value>| {
            let [flags] = &args[..] else {
                return Err(reply_error("redis.set_repl() requires two arguments."));
            };
            let flags = flags.as_f64().or_else(|| flags.as_i64().map(|n| n as f64)).unwrap_or(0.0);
            if !(0.0..4.0).contains(&flags) {
                let text = "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
                return Err(reply_error(text));
            }
            Ok(())
        })?,
    )?;
    redis.raw_set(
        "acl_check_cmd",
        lua.create_function(|_, args: Variadic<Value>| {
            let Some(name) = args.first() else {
                return Err(reply_error("Please specify at least one argument for this redis lib call"));
            };
            if command::find(&text_of(name).unwrap_or_default()).is_none() {
                return Err(reply_error("Invalid command passed to redis.acl_check_cmd()"));
            }
            Ok(true) // Every client may send every command.
        })?,
    )?;
    if is_of_scripts {
        redis.raw_set("replicate_commands", lua.create_function(|_, _: MultiValue| Ok(true))?)?;
        redis.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
        redis.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    }
    for (name, flags) in [("NONE", 0), ("AOF", 1), ("SLAVE", 2), ("REPLICA", 2), ("ALL", 3)] {
        redis.raw_set(format!("REPL_{name}"), flags)?;
    }
    add_log(lua, &redis)?;
    Ok(redis)
}

/// Adds the functions and numbers about the log and the version, which libraries see as well while they are loaded.
pub(super) fn add_log(lua: &Lua, redis: &Table) -> mlua::Result<()> {
    redis.raw_set(
        "log",
        lua.create_function(|_, args: Variadic<Value>| {
            let [level, texts @ ..] = &args[..] else {
                return Err(reply_error("redis.log() requires two arguments or more."));
            };
            if texts.is_empty() {
                return Err(reply_error("redis.log() requires two arguments or more."));
            }
            let Some(level) = level.as_f64().or_else(|| level.as_i64().map(|n| n as f64)) else {
                return Err(reply_error("First argument must be a number (log level)."));
            };
            let texts: Vec<_> = texts.iter().filter_map(text_of).collect();
            let text = String::from_utf8_lossy(&texts.join(&b' ')).into_owned();
            match level as i64 {
                0 | 1 => tracing::debug!(text, "a script says"),
                2 => tracing::info!(text, "a script says"),
                3 => tracing::warn!(text, "a script says"),
                _ => return Err(reply_error("Invalid debug level.")),
            }
            Ok(())
        })?,
    )?;
    for (name, level) in [("DEBUG", 0), ("VERBOSE", 1), ("NOTICE", 2), ("WARNING", 3)] {
        redis.raw_set(format!("LOG_{name}"), level)?;
    }
    redis.raw_set("REDIS_VERSION", super::REDIS_VERSION)?;
    let parts = super::REDIS_VERSION.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    redis.raw_set("REDIS_VERSION_NUM", parts.fold(0, |number, part| number << 8 | part))
}

fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

/// Why a call of `redis.call` gives no value.
enum CallError {
    /// The command's error, with its code.
    Reply(Vec<u8>),
    /// Lua's.
    Lua(mlua::Error),
}

impl From<mlua::Error> for CallError {
    fn from(error: mlua::Error) -> CallError {
        CallError::Lua(error)
    }
}

/// Runs one command of a script.
fn call(lua: &Lua, state: &State, args: &MultiValue) -> Result<Value, CallError> {
    let refused = |text: &str| CallError::Reply([b"ERR ", text.as_bytes()].concat());
    if args.is_empty() {
        return Err(refused("Please specify at least one argument for this redis lib call"));
    }
    let (mut bytes, mut spans) = state.arguments.take();
    bytes.clear();
    spans.clear();
    for arg in args {
        let start = bytes.len();
        match arg {
            Value::String(text) => bytes.extend_from_slice(&text.as_bytes()),
            Value::Integer(n) => bytes.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
            Value::Number(number) => bytes.extend_from_slice(format_general(*number, 17).as_bytes()),
            _ => return Err(refused("Lua redis lib command arguments must be strings or integers")),
        }
        if bytes.len() > protocol::REQUEST_BYTES_MAX {
            return Err(refused("the arguments of a command of a script exceed 1 GiB"));
        }
        spans.push(Span { start: start as u32, len: (bytes.len() - start) as u32 });
    }
    let result = run(lua, state, &bytes, &spans);
    if bytes.capacity() <= ARGUMENTS_KEPT_BYTES {
        state.arguments.replace((bytes, spans));
    }
    result
}

fn run(lua: &Lua, state: &State, bytes: &[u8], spans: &[Span]) -> Result<Value, CallError> {
    let refused = |text: &str| CallError::Reply([b"ERR ", text.as_bytes()].concat());
    let unknown = || refused("Unknown Redis command called from script");
    let row = command::find(spans[0].of(bytes)).ok_or_else(unknown)?;
    let request = Request::new(row, bytes, &spans[1..]);
    let request = command::resolve(request).map_err(|_| unknown())?;
    check(request.command, request.arg_count(), state)?;
    let mut value = Ok(Value::Nil);
    state.calls.set(state.calls.get().wrapping_add(1));
    if state.calls.get().is_multiple_of(CALLS_PER_LOOK) {
        look_up(state)?;
    }
    HOST.with(|host| {
        host.run(&request, &mut |reply| {
            value = match reply {
                Reply::Error(error) => Err(CallError::Reply(error_text(error))),
                reply => to_lua(lua, reply, state.is_resp3.get()).map_err(CallError::Lua),
            };
        });
    });
    value
}

/// Whether a script may run this command with so many arguments.
fn check(row: &'static Command, arg_count: usize, state: &State) -> Result<(), CallError> {
    let refused = |text: &str| CallError::Reply([b"ERR ", text.as_bytes()].concat());
    match protocol::check_arity(row, arg_count) {
        Ok(()) => {}
        Err(Error::WrongArity(_)) => {
            return Err(refused("Wrong number of args calling Redis command from script"));
        }
        Err(error) => return Err(CallError::Reply(error_text(&error))),
    }
    if row.has(Flags::NOSCRIPT) {
        return Err(refused("This Redis command is not allowed from script"));
    }
    if row.has(Flags::WRITE) && state.is_read_only.get() {
        return Err(refused("Write commands are not allowed from read-only scripts."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than Lua has places for handles.
    const MANY: usize = 8_500;

    /// Runs a program, with the tables of scripts or of a library that is being loaded.
    fn run(engine: &Engine, entry: &Function, program: &str) -> Result<(), String> {
        let program = engine.compile(program.as_bytes(), "user_script").unwrap();
        let ran = entry.call::<(bool, Value)>(engine.held.get(&program).unwrap());
        match ran.map_err(|error| error.to_string())? {
            (true, _) => Ok(()),
            (false, _) => Err(String::from_utf8(engine.taken_failure().text).unwrap()),
        }
    }

    #[test]
    fn a_state_holds_more_functions_than_lua_has_places_and_lets_them_go() {
        let engine = Engine::new(1).unwrap();
        let return_number =
            |number| engine.compile(format!("return {number}").as_bytes(), "user_script").unwrap();
        let compiled: Vec<_> = (0..MANY).map(return_number).collect();
        let register = format!(
            "for number = 1, {MANY} do redis.register_function('f' .. number, function() return number end) end"
        );
        assert_eq!(run(&engine, &engine.run_library, &register), Ok(()));
        assert_eq!(engine.held.get(&compiled[MANY - 1]).unwrap().call::<usize>(()).unwrap(), MANY - 1);
        let registered = engine.state.registered.take();
        let last = engine.held.get(&registered[&format!("f{MANY}")].callback).unwrap();
        assert_eq!(last.call::<usize>(()).unwrap(), MANY);
        let places = engine.held.count.get();
        drop((compiled, registered));
        let again: Vec<_> = (0..2 * MANY).map(return_number).collect();
        assert_eq!(engine.held.get(&again[7]).unwrap().call::<usize>(()).unwrap(), 7);
        assert!(engine.held.count.get() <= places, "places of dropped functions are taken again");
    }

    #[test]
    fn a_state_without_memory_is_used_on_unless_what_is_needed_fills_it() {
        let engine = Engine::new(1).unwrap();
        let fill = "local all, text = {}, 'x' for _ = 1, 24 do text = text .. text end
            for number = 1, COUNT do all[number] = text .. number end";
        let endless = fill.replace("COUNT", "100");
        assert_eq!(run(&engine, &engine.run_script, &endless), Err("ERR not enough memory".to_owned()));
        assert!(engine.memory_bytes() > MEMORY_MAX / 4 * 3);
        assert!(engine.relieve(true));
        assert!(engine.memory_bytes() < MEMORY_MAX / 4, "{}", engine.memory_bytes());
        let kept = fill.replace("COUNT", "25") + " redis.register_function('f', function() return all end)";
        assert_eq!(run(&engine, &engine.run_library, &kept), Ok(()));
        assert!(!engine.relieve(false), "there is a function that needs it");
        engine.state.registered.take();
        assert!(engine.relieve(false));
    }
}
