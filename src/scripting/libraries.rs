//! Libraries of functions: all that a server has, their code, and how it is loaded into a Lua state.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, Table, Value, Variadic};
use shard::{Error, Glob, Reply};

use super::engine::{Compiled, Engine, Held, State, add_log, reply_error};
use super::refusal;
use super::shebang::{FLAGS, NAME_RULE, is_name, library_name};
use super::values::text_of;

/// All libraries of a server. They are never changed, but replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    /// Greater for newer ones.
    pub version: u64,
    libraries: BTreeMap<String, Arc<Library>>,
    /// The library of each function, by its name in small letters.
    functions: HashMap<String, Arc<Library>>,
}

/// What is to become of the libraries.
#[derive(Debug)]
pub enum LibraryChange {
    /// One more, or one in place of that of its name.
    Load {
        /// It.
        library: Arc<Library>,
        /// One of its name is replaced.
        replaces: bool,
    },
    /// One less.
    Delete(String),
    /// None are left.
    Flush,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// All of its code.
    pub code: Box<[u8]>,
    /// Its functions, in the order of their names.
    pub functions: Vec<FunctionInfo>,
}

/// What is said of a function.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its flags, as indexes of [`FLAGS`].
    flags: Vec<usize>,
}

impl FunctionInfo {
    /// A function with these flags; none where one of them is unknown.
    pub fn new(name: String, description: Option<String>, flags: &[String]) -> Option<FunctionInfo> {
        let flags = flags.iter().map(|flag| FLAGS.iter().position(|known| known == flag));
        Some(FunctionInfo { name, description, flags: flags.collect::<Option<_>>()? })
    }

    /// The names of its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        self.flags.iter().map(|flag| FLAGS[*flag])
    }

    /// Whether it changes no key.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(&0)
    }
}

impl Libraries {
    /// How many there are.
    pub fn library_count(&self) -> usize {
        self.libraries.len()
    }

    /// How many functions they have.
    pub fn function_count(&self) -> usize {
        self.functions.len()
    }

    /// The bytes of their code.
    pub fn bytes(&self) -> usize {
        self.libraries.values().map(|library| library.code.len()).sum()
    }

    /// All of these; none where two of them cannot be together.
    pub fn of(libraries: Vec<Library>) -> Option<Libraries> {
        let with = |all: Libraries, library| all.with(Arc::new(library), false).ok();
        libraries.into_iter().try_fold(Libraries::default(), with)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Library> {
        self.libraries.values().map(|library| &**library)
    }

    /// The codes of all, in the order of their names.
    pub fn codes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.libraries.values().map(|library| &*library.code)
    }

    /// The function of this name, and its library.
    pub fn function(&self, name: &[u8]) -> Option<(&Arc<Library>, &FunctionInfo)> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let library = self.functions.get(&name)?;
        library
            .functions
            .iter()
            .find(|info| info.name.eq_ignore_ascii_case(&name))
            .map(|info| (library, info))
    }

    /// Whether a library of this name may be added.
    ///
    /// # Errors
    /// There is one, and it is not to be replaced.
    pub fn check_name(&self, name: &str, replaces: bool) -> Result<(), Error> {
        match self.libraries.contains_key(name) && !replaces {
            true => Err(refusal(format_args!("Library '{name}' already exists"))),
            false => Ok(()),
        }
    }

    /// These and one more, or that in place of the one of its name.
    ///
    /// # Errors
    /// Its name, or that of a function of it, is taken.
    fn with(&self, library: Arc<Library>, replaces: bool) -> Result<Libraries, Error> {
        self.check_name(&library.name, replaces)?;
        let mut next = self.without(&library.name);
        for info in &library.functions {
            let name = info.name.to_ascii_lowercase();
            // Two of one library differ in the case of letters at most; the last one is found.
            match next.functions.insert(name, library.clone()) {
                Some(other) if !Arc::ptr_eq(&other, &library) => {
                    return Err(refusal(format_args!("Function {} already exists", info.name)));
                }
                _ => {}
            }
        }
        next.libraries.insert(library.name.clone(), library);
        Ok(next)
    }

    fn without(&self, name: &str) -> Libraries {
        let mut next = self.clone();
        next.version += 1;
        if let Some(library) = next.libraries.remove(name) {
            library
                .functions
                .iter()
                .for_each(|info| drop(next.functions.remove(&info.name.to_ascii_lowercase())));
        }
        next
    }

    /// These after a change.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn changed(&self, change: &LibraryChange) -> Result<Libraries, Error> {
        match change {
            LibraryChange::Load { library, replaces } => self.with(library.clone(), *replaces),
            LibraryChange::Delete(name) if !self.has(name.as_bytes()) => Err(refusal("Library not found")),
            LibraryChange::Delete(name) => Ok(self.without(name)),
            LibraryChange::Flush => Ok(Libraries { version: self.version + 1, ..Libraries::default() }),
        }
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.libraries.contains_key(name))
    }

    /// The reply of `FUNCTION LIST`.
    pub fn list(&self, pattern: Option<&Glob>, with_code: bool) -> Reply<'static> {
        let shown = self
            .libraries
            .values()
            .filter(|library| pattern.is_none_or(|pattern| pattern.matches(library.name.as_bytes())));
        Reply::Array(shown.map(|library| library.reply(with_code)).collect())
    }
}

fn bulk(text: &[u8]) -> Reply<'static> {
    Reply::Bulk(text.to_vec().into())
}

impl Library {
    fn reply(&self, with_code: bool) -> Reply<'static> {
        let functions = self.functions.iter().map(|info| {
            let flags = info.flags().map(Reply::Simple).collect();
            let description = info.description.as_ref().map_or(Reply::Nil, |text| bulk(text.as_bytes()));
            Reply::Map(vec![
                ("name".into(), bulk(info.name.as_bytes())),
                ("description".into(), description),
                ("flags".into(), Reply::Set(flags)),
            ])
        });
        let mut fields = vec![
            ("library_name".into(), bulk(self.name.as_bytes())),
            ("engine".into(), bulk(b"LUA")),
            ("functions".into(), Reply::Array(functions.collect())),
        ];
        if with_code {
            fields.push(("library_code".into(), bulk(&self.code)));
        }
        Reply::Map(fields)
    }
}

/// What a library registers while it is loaded.
pub(super) struct Registered {
    info: FunctionInfo,
    pub(super) callback: Compiled,
}

/// Runs the code of a library in a state.
///
/// # Errors
/// It is no library.
pub(super) fn load(engine: &Engine, code: &[u8]) -> Result<(Library, HashMap<String, Compiled>), Error> {
    let (name, program_at) = library_name(code)?;
    let program = engine.compile(&code[program_at..], "user_function");
    let program = program.map_err(|message| refusal(format_args!("Error compiling function: {message}")))?;
    engine.state.registered.borrow_mut().clear();
    let ran = engine.run_library(&program);
    let registered = engine.state.registered.take();
    ran.map_err(|failure| {
        Error::OfScript([b"ERR Error registering functions: ", &failure.text[..]].concat().into())
    })?;
    if registered.is_empty() {
        return Err(refusal("No functions registered"));
    }
    let functions = registered.values().map(|it| it.info.clone()).collect();
    let callbacks = registered.into_iter().map(|(name, it)| (name, it.callback)).collect();
    Ok((Library { name, code: code.into(), functions }, callbacks))
}

/// The libraries that are loaded into a state.
#[derive(Default)]
pub(super) struct Loaded {
    libraries: HashMap<String, (Arc<Library>, HashMap<String, Compiled>)>,
}

impl Loaded {
    /// The function of a library, which is loaded for it.
    pub(super) fn function(
        &mut self,
        engine: &Engine,
        library: &Arc<Library>,
        name: &str,
    ) -> Result<Compiled, Error> {
        if let Some((loaded, functions)) = self.libraries.get(&library.name)
            && Arc::ptr_eq(loaded, library)
        {
            return registered(functions, name);
        }
        let (_, functions) = load(engine, &library.code)?;
        let function = registered(&functions, name)?;
        self.libraries.insert(library.name.clone(), (library.clone(), functions));
        Ok(function)
    }

    /// Drops what is not among these.
    pub(super) fn keep(&mut self, libraries: &Libraries) {
        self.libraries.retain(|name, _| libraries.libraries.contains_key(name));
    }
}

/// The function of this name, which a library need not register each time that it is loaded.
fn registered(functions: &HashMap<String, Compiled>, name: &str) -> Result<Compiled, Error> {
    functions.get(name).cloned().ok_or_else(|| refusal("Function not found"))
}

/// The table `redis` as libraries see it while they are loaded.
pub(super) fn table(lua: &Lua, state: &Rc<State>, held: &Rc<Held>) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    let (of, held) = (state.clone(), held.clone());
    redis.raw_set(
        "register_function",
        lua.create_function(move |_, args: Variadic<Value>| {
            let registered = match &args[..] {
                [Value::Table(named)] => by_names(named, &held)?,
                [_] => {
                    let text = "calling redis.register_function with a single argument is only applicable to Lua \
                                table (representing named arguments).";
                    return Err(reply_error(text));
                }
                [name, callback] => {
                    let Some(name) = text_of(name) else {
                        return Err(reply_error("first argument to redis.register_function must be a string"));
                    };
                    let Value::Function(callback) = callback else {
                        return Err(reply_error("second argument to redis.register_function must be a function"));
                    };
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let info = FunctionInfo { name, description: None, flags: Vec::new() };
                    Registered { info, callback: held.hold(callback)? }
                }
                _ => return Err(reply_error("wrong number of arguments to redis.register_function")),
            };
            if !is_name(&registered.info.name) {
                return Err(reply_error(NAME_RULE));
            }
            let mut all = of.registered.borrow_mut();
            if all.contains_key(&registered.info.name) {
                return Err(reply_error("Function already exists in the library"));
            }
            all.insert(registered.info.name.clone(), registered);
            Ok(())
        })?,
    )?;
    add_log(lua, &redis)?;
    Ok(redis)
}

fn by_names(named: &Table, held: &Held) -> mlua::Result<Registered> {
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Vec::new());
    for pair in named.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let text = || text_of(&value).map(|text| String::from_utf8_lossy(&text).into_owned());
        match text_of(&key).unwrap_or_default().as_slice() {
            b"function_name" => match text() {
                Some(given) => name = Some(given),
                None => {
                    let text = "function_name argument given to redis.register_function must be a string";
                    return Err(reply_error(text));
                }
            },
            b"description" => match text() {
                Some(given) => description = Some(given),
                None => {
                    return Err(reply_error(
                        "description argument given to redis.register_function must be a string",
                    ));
                }
            },
            b"callback" => match value {
                Value::Function(given) => callback = Some(held.hold(&given)?),
                _ => {
                    return Err(reply_error(
                        "callback argument given to redis.register_function must be a function",
                    ));
                }
            },
            b"flags" => match &value {
                Value::Table(given) => {
                    for flag in given.sequence_values::<Value>() {
                        let flag = text_of(&flag?).unwrap_or_default();
                        let Some(index) = FLAGS.iter().position(|known| known.as_bytes() == flag) else {
                            return Err(reply_error("unknown flag given"));
                        };
                        flags.push(index);
                    }
                }
                _ => {
                    let text = "flags argument to redis.register_function must be a table representing function flags";
                    return Err(reply_error(text));
                }
            },
            _ => return Err(reply_error("unknown argument given to redis.register_function")),
        }
    }
    let name =
        name.ok_or_else(|| reply_error("redis.register_function must get a function name argument"))?;
    let callback =
        callback.ok_or_else(|| reply_error("redis.register_function must get a callback argument"))?;
    flags.sort_unstable();
    flags.dedup();
    Ok(Registered { info: FunctionInfo { name, description, flags }, callback })
}
