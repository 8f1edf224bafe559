//! Who may use whom. The sources are read, not the compiled program: of every file the `use` lines and the paths that
//! begin with `crate`, `super`, `self` or a child of the file's module.
//!
//! - `src/`: its rooms, which are the directories and files right below it, stand in the order that
//!   `docs/architecture.md` draws. A room uses rooms of lower groups only.
//! - `shard/src/`, `wal/src/`: no circle of files, whatever the directories.
//!
//! `use a::b` is a use of the file that defines `b`: re-exports (`pub use`) are followed, and are no uses themselves.
//! What stands under `#[cfg(test)]` may use anything.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::Path;

/// Where the order of the rooms stands.
const DOCUMENT: &str = "docs/architecture.md";

/// The line before the rooms in it.
const ROOMS_BEGIN: &str = "```rooms";

/// The path of a module from the root of its crate, which is the empty one.
type Module = Vec<String>;

/// The files of a crate.
struct Tree {
    /// The name by which `main.rs` knows the crate.
    name: &'static str,
    files: BTreeMap<Module, File>,
}

/// What one file says of others.
struct File {
    /// From the root of the repository.
    path: String,
    uses: Vec<Use>,
    /// What the file has imported, by the name that it has here: whole paths.
    names: HashMap<String, Vec<String>>,
}

/// A path in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    line: usize,
    path: Vec<String>,
    /// It only gives what it names another place.
    is_reexport: bool,
}

/// One file uses another one.
#[derive(Clone)]
struct Import {
    at: String,
    written: String,
    from: Module,
    to: Module,
}

impl fmt::Display for Import {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Import { at, written, from, to } = self;
        write!(out, "{at}: {} uses {} ({written})", from.join("::"), to.join("::"))
    }
}

impl Tree {
    /// Reads all files below `directory`, a path from the root of the repository.
    fn read(name: &'static str, directory: &str) -> Tree {
        Tree::of(name, directory, &sources_below(directory))
    }

    /// The tree of these files, each a path that begins with `directory`, and its text.
    fn of(name: &'static str, directory: &str, sources: &[(String, String)]) -> Tree {
        let texts: Vec<(Module, &str, Code)> = sources
            .iter()
            .map(|(path, text)| (module_of(&path[directory.len() + 1..]), path.as_str(), Code::of(text)))
            .collect();
        let under_test: BTreeSet<Module> = texts
            .iter()
            .flat_map(|(module, _, code)| {
                code.test_modules.iter().map(move |child| [&module[..], std::slice::from_ref(child)].concat())
            })
            .collect();
        let is_test = |module: &Module| (1..=module.len()).any(|end| under_test.contains(&module[..end]));
        let files = texts.into_iter().filter(|(module, ..)| !is_test(module)).map(|(module, path, code)| {
            let uses = code.uses();
            (module, File { path: path.to_owned(), names: code.names(), uses })
        });
        Tree { name, files: files.collect() }
    }

    /// Every use of one file by another one.
    fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, file) in &self.files {
            for it in file.uses.iter().filter(|it| !it.is_reexport) {
                if let Some(to) = self.resolve(from, &it.path, 0).filter(|to| to != from) {
                    let (at, written) = (format!("{}:{}", file.path, it.line), it.path.join("::"));
                    imports.push(Import { at, written, from: from.clone(), to });
                }
            }
        }
        imports
    }

    /// The module whose file defines what `path` names in `from`; `None` where that is outside of the crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        assert!(depth < 20, "{path:?} in {from:?} names itself");
        let is_module = |parent: &Module, name: &String| {
            self.files.contains_key(&[&parent[..], std::slice::from_ref(name)].concat())
        };
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => (from[..from.len() - 1].to_vec(), &path[1..]),
            name if name == self.name && from.first().is_some_and(|room| room == "main") => {
                (Module::new(), &path[1..])
            }
            _ if is_module(from, &path[0]) => (from.clone(), path),
            _ => return None,
        };
        while let Some((name, others)) = rest.split_first() {
            if name == "super" {
                module.pop();
            } else if is_module(&module, name) {
                module.push(name.clone());
            } else if let Some(whole) = self.files.get(&module).and_then(|file| file.names.get(name))
                && whole[..] != *path
                && let Some(there) = self.resolve(&module, whole, depth + 1)
            {
                module = there;
            } else {
                break;
            }
            rest = others;
        }
        Some(module)
    }

    /// The directories and files right below the root.
    fn rooms(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|module| Some(module.first()?.as_str())).collect()
    }

    /// What contradicts the order of the rooms.
    fn against(&self, order: &Order) -> Vec<String> {
        let known: BTreeSet<&str> = order.iter().flatten().map(String::as_str).collect();
        let rooms = self.rooms();
        let missing = rooms.difference(&known).map(|room| format!("{DOCUMENT}: the room {room} is missing"));
        let surplus = known.difference(&rooms).map(|room| format!("{DOCUMENT}: there is no room {room}"));
        let mut faults: Vec<String> = missing.chain(surplus).collect();
        let group = |module: &Module| {
            order.iter().position(|group| module.first().is_some_and(|it| group.contains(it)))
        };
        for import in self.imports() {
            if import.from.first() != import.to.first()
                && let (Some(from), Some(to)) = (group(&import.from), group(&import.to))
                && from >= to
            {
                let way = if from == to { "sideways" } else { "up" };
                faults.push(format!("{import}, which runs {way}"));
            }
        }
        faults
    }

    /// The shortest circle through each file that is in one, told once for the files of it.
    fn circles(&self) -> Vec<String> {
        let imports = self.imports();
        let mut told = BTreeSet::new();
        let mut faults = Vec::new();
        for start in self.files.keys() {
            let Some(circle) = circle(&imports, start).filter(|_| !told.contains(start)) else { continue };
            told.extend(circle.iter().map(|import| import.from.clone()));
            faults.push(circle.iter().map(Import::to_string).collect::<Vec<_>>().join("\n    "));
        }
        faults
    }
}

/// The path and the text of every file of Rust below `directory`, a path from the root of the repository.
fn sources_below(directory: &str) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut directories = VecDeque::from([directory.to_owned()]);
    while let Some(directory) = directories.pop_front() {
        for entry in std::fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                directories.push_back(path);
            } else if path.ends_with(".rs") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                sources.push((path, text));
            }
        }
    }
    sources
}

/// The imports by which one comes from `start` back to it, as few as there can be.
fn circle(imports: &[Import], start: &Module) -> Option<Vec<Import>> {
    let mut ways: HashMap<&Module, Vec<Import>> = HashMap::from([(start, Vec::new())]);
    let mut next = VecDeque::from([start]);
    while let Some(module) = next.pop_front() {
        for import in imports.iter().filter(|import| import.from == *module) {
            let way = [&ways[module][..], std::slice::from_ref(import)].concat();
            if import.to == *start {
                return Some(way);
            }
            if !ways.contains_key(&import.to) {
                ways.insert(&import.to, way);
                next.push_back(&import.to);
            }
        }
    }
    None
}

/// The module that a file is, by its path below the root of its crate.
fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The text of a file without comments, literals and what is there for tests only. Lines stay where they are.
struct Code {
    text: String,
    /// Children of the module that are for tests only.
    test_modules: Vec<String>,
}

const TEST_MARK: &str = "#[cfg(test)]";

impl Code {
    fn of(text: &str) -> Code {
        let mut code = Code { text: without_literals(text), test_modules: Vec::new() };
        while let Some(start) = code.text.find(TEST_MARK) {
            let end = start + TEST_MARK.len() + item_bytes(&code.text[start + TEST_MARK.len()..]);
            let item = &code.text[start..end];
            if let Some(name) = item.strip_suffix(';').and_then(|it| Some(it.split_once("mod ")?.1)) {
                code.test_modules.push(name.trim().to_owned());
            }
            let blank = blanked(item);
            code.text.replace_range(start..end, &blank);
        }
        code
    }

    /// Every path that may lead to another file.
    fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        let (mut at, text) = (0, &self.text[..]);
        while let Some(start) = text[at..].find(is_name).map(|found| at + found) {
            let end = start + text[start..].find(|char| !is_name(char)).unwrap_or(text.len() - start);
            let line = || text[..start].matches('\n').count() + 1;
            let before = text[..start].trim_end();
            at = end;
            if &text[start..end] == "use" {
                let statement = text[end..].find(';').expect("a use ends");
                let is_reexport = before.rsplit(['\n', ';', '}']).next().is_some_and(|it| it.contains("pub"));
                for (_, path) in use_tree(&text[end..end + statement]) {
                    uses.push(Use { line: line(), path, is_reexport });
                }
                at = end + statement;
            } else if !before.ends_with("::") && text[end..].starts_with("::") {
                let path = path_at(&text[start..]);
                at = start + path.len();
                let path = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
                uses.push(Use { line: line(), path, is_reexport: false });
            }
        }
        uses
    }

    /// What is imported, by its name here.
    fn names(&self) -> HashMap<String, Vec<String>> {
        let statements = self.text.split("use ").skip(1).filter_map(|rest| Some(rest.split_once(';')?.0));
        statements.flat_map(use_tree).filter(|(name, _)| name != "_").collect()
    }
}

fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The path, `a::b::c`, with which the text begins.
fn path_at(text: &str) -> &str {
    let end = text.char_indices().find(|(at, char)| {
        !is_name(*char) && !text[*at..].starts_with("::") && !text[..at + 1].ends_with("::")
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// All paths of a use tree such as `a::{b, c::{self, d as e}}`, each with the name that it has then.
fn use_tree(tree: &str) -> Vec<(String, Vec<String>)> {
    let tree = tree.trim();
    if let Some((prefix, inner)) = tree.strip_suffix('}').and_then(|tree| tree.split_once('{')) {
        let prefix: Vec<String> =
            prefix.split("::").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
        for (at, char) in inner.char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&inner[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&inner[start..]);
        let parts = parts.into_iter().filter(|part| !part.trim().is_empty()).flat_map(use_tree);
        return parts
            .map(|(name, path)| match &path[..] {
                [only] if only == "self" => (prefix.last().cloned().unwrap_or(name), prefix.clone()),
                _ => (name, [&prefix[..], &path[..]].concat()),
            })
            .collect();
    }
    let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
    let path: Vec<String> =
        path.split("::").map(str::trim).filter(|it| !matches!(*it, "" | "*")).map(str::to_owned).collect();
    let name = name.map(str::to_owned).or_else(|| path.last().cloned()).unwrap_or_default();
    vec![(name, path)]
}

/// How long the item is with which the text begins, its other attributes included.
fn item_bytes(text: &str) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, char) in text.char_indices() {
        match char {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' if braces == 0 => return at, // The last field of a struct, or the like.
            '}' => braces -= 1,
            _ => {}
        }
        if (braces, others) == (0, 0) && matches!(char, '}' | ';' | ',') {
            return at + 1;
        }
    }
    text.len()
}

/// The same lines, empty.
fn blanked(text: &str) -> String {
    text.chars().map(|char| if char == '\n' { '\n' } else { ' ' }).collect()
}

/// The text with blanks in place of comments and of what stands between quotes.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let bytes = literal_bytes(rest, code.chars().next_back().is_some_and(is_name));
        match bytes {
            0 => code.push(char),
            _ => code.push_str(&blanked(&rest[..bytes])),
        }
        rest = &rest[bytes.max(char.len_utf8())..];
    }
    code
}

/// How long the comment or literal is with which the text begins; 0 where it is neither.
fn literal_bytes(text: &str, is_behind_name: bool) -> usize {
    let up_to =
        |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return up_to(2, "*/");
    }
    if text.starts_with("r\"") || text.starts_with("r#") && !is_behind_name {
        let hashes = text[1..].chars().take_while(|char| *char == '#').count();
        if text[1 + hashes..].starts_with('"') {
            return up_to(2 + hashes, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    let quote = match text.as_bytes()[0] {
        b'"' => '"',
        // A lifetime has no second quote behind one character.
        b'\'' if text[1..].starts_with('\\') || text[1..].chars().nth(1) == Some('\'') => '\'',
        _ => return 0,
    };
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Groups of rooms, the uppermost first. No room uses one of its own group or of one above.
type Order = Vec<Vec<String>>;

/// The order of the rooms as the document draws it: one line for a room, the groups divided by empty lines.
fn order_in(document: &str) -> Order {
    let lines = document.lines().skip_while(|line| *line != ROOMS_BEGIN).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    let groups = lines.split(|line| line.trim().is_empty());
    let room =
        |line: &&str| line.split_whitespace().next().filter(|_| !line.starts_with(' ')).map(str::to_owned);
    groups.map(|group| group.iter().filter_map(room).collect()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn expect_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn rooms_use_only_what_stands_below_them() {
    let document = std::fs::read_to_string(root().join(DOCUMENT)).unwrap();
    expect_none(&Tree::read("kvlite", "src").against(&order_in(&document)));
}

#[test]
fn there_is_no_circle_in_the_shard() {
    expect_none(&Tree::read("shard", "shard/src").circles());
}

#[test]
fn there_is_no_circle_in_the_log() {
    expect_none(&Tree::read("wal", "wal/src").circles());
}

/// The lines of the sources below `directory` that contain a word, in any case.
fn lines_with(word: &str, directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources_below(directory) {
        let lines = text.lines().enumerate().filter(|(_, line)| line.to_lowercase().contains(word));
        found.extend(lines.map(|(line, text)| format!("{path}:{}: {}", line + 1, text.trim())));
    }
    found
}

#[test]
fn neither_shards_nor_sockets_know_how_clients_are_answered() {
    let found = ["shard", "src/net"].map(|directory| lines_with("dialect", directory));
    expect_none(&found.concat());
    assert!(!lines_with("dialect", "src/protocol").is_empty(), "the word is still the one to look for");
}

#[test]
fn the_document_names_files_that_exist() {
    let document = std::fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let named = document.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs"));
    let exists = |name: &str| root().join(name).is_file() || root().join("src").join(name).is_file();
    let missing: Vec<String> =
        named.filter(|name| !exists(name)).map(|name| format!("{DOCUMENT}: there is no {name}")).collect();
    expect_none(&missing);
}

/// A tree of these files.
fn made_up(sources: &[(&str, &str)]) -> Tree {
    let sources: Vec<_> =
        sources.iter().map(|(path, text)| (format!("src/{path}"), (*text).to_owned())).collect();
    Tree::of("house", "src", &sources)
}

const HOUSE: &str = "\
# A house

```rooms
main     goes in

roof     keeps dry
         what is below

kitchen  cooks
study    reads

cellar   stores
```

cellar is not drawn here
";

#[test]
fn an_import_that_runs_up_or_sideways_is_found_however_it_is_written() {
    let tree = made_up(&[
        ("lib.rs", "pub mod roof;\npub mod kitchen;\npub mod study;\npub mod cellar;\npub use roof::Tile;\n"),
        ("main.rs", "use house::Tile;\nfn main() { house::cellar::Jar::new(); }\n"),
        ("roof.rs", "use crate::{cellar::Jar, kitchen::stove::{self, Pot}};\npub struct Tile;\n"),
        ("kitchen/mod.rs", "mod stove;\n/* use crate::roof; */ const TEXT: &str = \"use crate::roof;\";\n"),
        ("kitchen/stove.rs", "use std::io;\n\nuse super::super::study::Book as Fuel;\n"),
        (
            "study/mod.rs",
            "// use crate::roof::Tile;\nfn read() -> char {\n    '\"'; crate::cellar::Jar\n}\n\
             #[cfg(test)]\nmod tests {\n    use crate::roof::Tile;\n}\n#[cfg(test)]\nmod samples;\n",
        ),
        ("study/samples.rs", "use crate::roof::Tile;\n"),
        (
            "cellar.rs",
            "use crate::{\n    study::{Book, lamp},\n    Tile,\n};\nfn f<'a>() {\n    crate::kitchen::cook();\n}\n",
        ),
    ]);
    let expected = [
        "src/cellar.rs:1: cellar uses study (crate::study::Book), which runs up",
        "src/cellar.rs:1: cellar uses study (crate::study::lamp), which runs up",
        "src/cellar.rs:1: cellar uses roof (crate::Tile), which runs up",
        "src/cellar.rs:6: cellar uses kitchen (crate::kitchen::cook), which runs up",
        "src/kitchen/stove.rs:3: kitchen::stove uses study (super::super::study::Book), which runs sideways",
    ];
    assert_eq!(tree.against(&order_in(HOUSE)), expected);
}

#[test]
fn every_room_is_drawn_and_no_other() {
    let tree = made_up(&[
        ("main.rs", ""),
        ("roof/mod.rs", ""),
        ("roof/ridge.rs", ""),
        ("attic.rs", ""),
        ("study.rs", ""),
    ]);
    let expected = [
        "docs/architecture.md: the room attic is missing",
        "docs/architecture.md: there is no room cellar",
        "docs/architecture.md: there is no room kitchen",
    ];
    assert_eq!(tree.against(&order_in(HOUSE)), expected);
}

#[test]
fn a_circle_is_found_through_what_is_given_another_place() {
    let sources = [
        ("lib.rs", "mod log;\nmod disk;\nmod error;\npub use disk::{Disk, MemDisk};\npub use log::Log;\n"),
        ("disk.rs", "mod mem;\npub use mem::MemDisk;\npub trait Disk {}\n"),
        ("disk/mem.rs", "use super::Disk;\npub struct MemDisk;\n"),
        ("log.rs", "use crate::{Disk, MemDisk};\nuse crate::error::Error;\npub struct Log;\n"),
        ("error.rs", "pub enum Error {}\n"),
    ];
    assert_eq!(made_up(&sources).circles(), Vec::<String>::new());
    let closed =
        sources.map(|(path, text)| (path, if path == "error.rs" { "use crate::Log;\n" } else { text }));
    let circle =
        "src/error.rs:1: error uses log (crate::Log)\n    src/log.rs:2: log uses error (crate::error::Error)";
    assert_eq!(made_up(&closed).circles(), [circle]);
}
