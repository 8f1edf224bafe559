//! Files made byte by byte: every encoding, every damage.

use super::input::Fault;
use super::rdb::Type;
use super::*;

const NOW_MS: u64 = 1_700_000_000_000;

/// An RDB file of these parts, with its end and its sum.
fn rdb(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [b"REDIS0011".as_slice(), &parts.concat(), b"\xff"].concat();
    let mut input = Input::new(&bytes[..]);
    input.skip(bytes.len() as u64).unwrap();
    bytes.extend_from_slice(&input.checksum().to_le_bytes());
    bytes
}

fn read(bytes: &[u8]) -> (Vec<Item>, Option<Damage>) {
    let mut items = Vec::new();
    let read = rdb::read(&mut Input::new(bytes), |item, _| {
        items.push(item);
        Ok::<_, Damage>(())
    });
    (items, read.err())
}

fn key(name: &[u8], value: &[u8], deadline_ms: Option<u64>) -> Item {
    Item::Key { db: 0, name: name.to_vec(), deadline_ms, value: Value::String(value.to_vec()) }
}

/// Strings in every encoding.
const STRINGS: &[&[u8]] = &[
    b"\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40",
    b"\xf5\x04code",
    b"\xfe\x00\xfb\x05\x02",
    b"\x00\x01a\x03one",
    b"\xfc\x00\x68\xe5\xcf\x8b\x01\x00\x00\x00\x01b\xc0\xff",
    b"\xfd\x00\xf1\x53\x65\xf8\x05\x00\x01c\xc1\x00\x80",
    b"\xf9\x03\x00\x01d\xc2\xff\xff\xff\x7f",
    b"\x00\x01e\xc3\x05\x40\x65\x00a\xe0\x5b\x00",
    b"\x00\x80\x00\x00\x00\x01f\x81\x00\x00\x00\x00\x00\x00\x00\x02\x00\xff",
];

fn strings() -> Vec<Item> {
    vec![
        Item::Functions,
        key(b"a", b"one", None),
        key(b"b", b"-1", Some(NOW_MS)),
        key(b"c", b"-32768", Some(1_700_000_000_000)),
        key(b"d", b"2147483647", None),
        key(b"e", &[b'a'; 101], None),
        key(b"f", b"\0\xff", None),
    ]
}

#[test]
fn strings_in_every_encoding() {
    let (items, damage) = read(&rdb(STRINGS));
    assert!(damage.is_none(), "{damage:?}");
    assert_eq!(items, strings());
}

/// A value of each type and encoding, with the type that it is read as.
const OTHERS: &[(Type, &[u8])] = &[
    (Type::List, b"\x01\x01k\x02\x01a\xc0\x05"),
    (Type::Set, b"\x02\x01k\x01\x01a"),
    (Type::SortedSet, b"\x03\x01k\x04\x01a\x031.5\x01b\xfd\x01c\xfe\x01d\xff"),
    (Type::Hash, b"\x04\x01k\x01\x01f\x01v"),
    (Type::SortedSet, b"\x05\x01k\x01\x01a\0\0\0\0\0\0\xf0\x3f"),
    (Type::Module, b"\x07\x01k\x81\0\0\0\0\0\0\0\x01\x01\x05\x02\x06\x03abcd\x04abcdefgh\x05\x03abc\0"),
    (Type::Hash, b"\x09\x01k\x03abc"),
    (Type::List, b"\x0a\x01k\x03abc"),
    (Type::Set, b"\x0b\x01k\x03abc"),
    (Type::SortedSet, b"\x0c\x01k\x03abc"),
    (Type::Hash, b"\x0d\x01k\x03abc"),
    (Type::List, b"\x0e\x01k\x02\x01a\xc3\x02\x01\x00a"),
    (Type::Stream, b"\x0f\x01k\x01\x10iiiiiiiiiiiiiiii\x03abc\x01\x02\x03\x00"),
    (Type::Hash, b"\x10\x01k\x03abc"),
    (Type::SortedSet, b"\x11\x01k\x03abc"),
    (Type::List, b"\x12\x01k\x01\x02\x03abc"),
    (
        Type::Stream,
        b"\x13\x01k\x00\x01\x02\x03\x04\x05\x06\x07\x08\x01\x05group\x01\x02\x03\x01iiiiiiiiiiiiiiiimmmmmmmm\x01\
          \x01\x05alice\x73\x73\x73\x73\x73\x73\x73\x73\x01iiiiiiiiiiiiiiii",
    ),
    (Type::Set, b"\x14\x01k\x03abc"),
    (
        Type::Stream,
        b"\x15\x01k\x00\x01\x02\x03\x04\x05\x06\x07\x08\x01\x05group\x01\x02\x03\x00\x01\x05alicessssssssaaaaaaaa\x00",
    ),
    (Type::Hash, b"\x16\x01k\x01\x00\x01f\x01v"),
    (Type::Hash, b"\x17\x01k\x03abc"),
    (Type::Hash, b"\x18\x01kmmmmmmmm\x01\x00\x01f\x01v"),
    (Type::Hash, b"\x19\x01kmmmmmmmm\x03abc"),
    (Type::Stream, b"\x1a\x01k\x00\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x02\x01\x01p\x01\x01i\x01\x02\x05\x06"),
];

#[test]
fn values_of_every_other_type_are_passed_over() {
    for (kind, bytes) in OTHERS {
        let (items, damage) = read(&rdb(&[b"\xfe\x03", bytes, b"\x00\x05after\x01x"]));
        assert!(damage.is_none(), "{}: {damage:?}", bytes.escape_ascii());
        let [Item::Key { db: 3, name, value: Value::Other(found), .. }, Item::Key { name: after, .. }] =
            &items[..]
        else {
            panic!("{}: {items:?}", bytes.escape_ascii())
        };
        assert_eq!((name.as_slice(), found, after.as_slice()), (b"k".as_slice(), kind, b"after".as_slice()));
    }
    // Type 22 is another one in Valkey's files.
    let valkey = b"VALKEY080\x16\x01k\x01\x01f\x01vmmmmmmmm\x00\x01a\x01b\xff\0\0\0\0\0\0\0\0";
    assert_eq!(read(valkey).0.len(), 2);
}

#[test]
fn a_type_that_is_not_known_ends_the_reading_with_its_place() {
    for kind in [6, 8, 27, 200, 0xf6] {
        let (items, damage) = read(&rdb(&[b"\x00\x01a\x01b", &[kind], b"\x01k\x01v"]));
        assert_eq!(items.len(), 1);
        let damage = damage.unwrap();
        assert!(matches!(damage.fault, Fault::UnknownType(found) if found == kind), "{damage}");
        assert_eq!(damage.offset, 14);
    }
}

/// A file with everything in it.
fn everything() -> Vec<u8> {
    let mut parts = STRINGS.to_vec();
    parts.extend(OTHERS.iter().map(|(_, bytes)| *bytes));
    rdb(&parts)
}

#[test]
fn a_file_that_is_cut_anywhere_is_told_and_what_was_read_is_right() {
    let whole = everything();
    let (items, damage) = read(&whole);
    assert!(damage.is_none(), "{damage:?}");
    for len in 0..whole.len() {
        let (read, damage) = read(&whole[..len]);
        assert!(damage.is_some(), "{len} of {} bytes seem whole", whole.len());
        assert!(items.starts_with(&read), "{len}");
    }
}

#[test]
fn no_bit_that_flips_goes_unnoticed() {
    let whole = everything();
    for index in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[index] ^= 1 << bit;
            // The version says whether there is a sum: no byte of a value may be lost, but that one may.
            let (items, damage) = read(&damaged);
            assert!(damage.is_some() || items == read(&whole).0, "bit {bit} of byte {index}");
        }
    }
}

#[test]
fn lengths_that_no_file_has_take_neither_memory_nor_time() {
    let claims: [&[u8]; 6] = [
        b"\x00\x01a\x80\xff\xff\xff\xff",            // A string of 4 GiB.
        b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff", // A key of 16 EiB.
        b"\x00\x01a\xc3\x03\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01ab", // Compressed to nothing.
        b"\x00\x01a\xc3\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01", // The same the other way.
        b"\x01\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff", // A list of as many.
        b"\x15\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff", // A stream.
    ];
    for claim in claims {
        let bytes = [b"REDIS0011".as_slice(), claim].concat();
        let (items, damage) = read(&bytes);
        let passed_over = items.iter().all(|item| matches!(item, Item::Key { value: Value::TooLong, .. }));
        assert!(passed_over && damage.is_some(), "{}", claim.escape_ascii());
    }
}

fn own(file: &Path, more: &[&str]) -> Own {
    let args = ["import", file.to_str().unwrap()].into_iter().chain(more.iter().copied());
    Own::from_arg_matches(&command().get_matches_from(args)).unwrap()
}

/// What a file with this content is said to hold, in a rehearsal.
fn rehearsed(content: &[u8], more: &[&str]) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let progress = Progress::new();
    let mut report = Report::new(false, &progress);
    let own = own(file.path(), &[&["--dry-run"], more].concat());
    match import(&own, None, &progress, &mut report) {
        Ok(()) => Ok(report.summary(true)),
        Err(failure) => Err(failure.to_string()),
    }
}

#[test]
fn what_is_damaged_is_not_imported_unless_what_is_left_is_asked_for() {
    let mut bytes = rdb(&[b"\x00\x01a\x01b\x00\x01c\x01d"]);
    assert_eq!(rehearsed(&bytes, &[]).unwrap(), "would import 2 keys (0 with a TTL), 0 expired");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let told = rehearsed(&bytes, &[]).unwrap_err();
    assert!(told.contains("at byte 20: the checksum is") && told.contains("2 keys before it"), "{told}");
    let left = "would import 2 keys (0 with a TTL), 0 expired, not taken: nothing, but any key may be wrong: the \
        checksum does not say where";
    assert_eq!(rehearsed(&bytes, &["--salvage"]).unwrap(), left);
    let told = rehearsed(b"*1\r\n$4\r\nPING\r\nnonsense", &[]).unwrap_err();
    assert!(told.contains("at byte 14"), "{told}");
    assert!(rehearsed(b"nonsense", &[]).unwrap_err().contains("no file that is known"));
    assert!(rehearsed(b"{\"a\": \"1\"", &[]).unwrap_err().contains("ends in the middle"));
}

#[test]
fn commands_may_stand_behind_an_rdb_file_and_lack_their_end() {
    let mut bytes = rdb(&[b"\x00\x01n\xc0\x05", b"\x04\x01h\x01\x01f\x01v"]);
    bytes.extend_from_slice(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n");
    bytes.extend_from_slice(b"*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n$1\r\nw\r\n");
    let said = "would import 1 key (0 with a TTL), 0 expired, not taken: 1 hash";
    assert_eq!(rehearsed(&bytes, &[]).unwrap(), said);
    bytes.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL\r\n$1\r\nn\r\n*1\r\n$4\r\nEX");
    let said = format!("{said}, 1 transaction that is cut, what is behind the damage");
    assert_eq!(rehearsed(&bytes, &[]).unwrap(), said);
}

/// An append-only file with these commands, a line each.
fn append_only(lines: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines.lines().map(str::trim) {
        let words: Vec<&str> = line.split(' ').collect();
        bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        words.iter().for_each(|word| {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        });
    }
    bytes
}

/// What a file of these commands gives, `key=value` and a deadline, and what is said of it.
fn replayed(lines: &str) -> (Vec<String>, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), append_only(lines)).unwrap();
    let progress = Progress::new();
    let mut report = Report::new(false, &progress);
    let own = own(file.path(), &["--dry-run"]);
    let import = Import { own: &own, progress: &progress, now_ms: NOW_MS };
    let source = Source { path: file.path().to_owned(), format: Format::Redis, may_be_empty: true };
    let databases = import.gather(&[source], &mut report).ok().unwrap();
    let mut keys = Vec::new();
    for (db, keyspace) in databases.all() {
        import.hand_on(db, keyspace, &mut Target::Nowhere, &mut report).unwrap();
        let listed = keyspace.each(|key, value, deadline_ms| {
            if let Some(database) = import.taken_into(db)
                && keyspace.reason(key).is_none()
            {
                let database = if database == 0 { String::new() } else { format!("{database} ") };
                let deadline = deadline_ms.map_or(String::new(), |deadline_ms| format!(" {deadline_ms}"));
                keys.push(format!("{database}{}={}{deadline}", key.escape_ascii(), value.escape_ascii()));
            }
            Ok::<_, ()>(())
        });
        listed.unwrap();
    }
    keys.sort();
    let summary = report.summary(true);
    let not_taken = summary.split_once(" expired").unwrap().1.trim_start_matches(", not taken: ");
    (keys, not_taken.to_owned())
}

#[test]
fn keys_are_renamed_copied_and_moved_as_in_redis() {
    for (lines, keys, not_taken) in [
        ("SET old 1 PXAT 9000000000000\nRENAME old new", &["new=1 9000000000000"][..], ""),
        ("SETEX old 9 1\nSET new 2\nRENAMENX old new", &["new=1 1700000009000"], ""),
        ("SET a 1\nRENAME a a", &["a=1"], ""),
        ("SET a 1\nSET b 2\nCOPY a b REPLACE\nINCR a", &["a=2", "b=1"], ""),
        ("SET m 1\nMOVE m 1", &["1 m=1"], ""),
        ("SELECT 1\nSET m 1\nMOVE m 0", &["m=1"], ""),
        ("SET a 1\nSELECT 1\nSET b 1\nCOPY b a DB 0 REPLACE\nDEL b", &["a=1"], ""),
        ("SET a 0\nSELECT 1\nSET b 1\nSWAPDB 0 1", &["1 a=0", "b=1"], ""),
        ("SELECT 1024\nSET a 0", &[], "1 key of database 1024 (--db 1024 takes them alone)"),
        ("SELECT x\nSET a 0", &[], "1 key of databases whose number is none"),
        ("SET a 0\nSWAPDB 1 0\nINCR a\nSELECT 1\nDEL a", &["a=1"], ""),
        ("SET a 0\nSELECT 1\nSET b 1\nFLUSHDB", &["a=0"], ""),
        ("SELECT 1\nSET b 1\nSELECT x\nSET c 1\nFLUSHALL\nSELECT 0\nSET a 0", &["a=0"], ""),
    ] {
        assert_eq!(
            replayed(lines),
            (keys.iter().map(|key| (*key).to_owned()).collect(), not_taken.to_owned())
        );
    }
}

#[test]
fn a_key_is_not_taken_with_a_value_that_it_has_no_more() {
    for (lines, keys, not_taken) in [
        // No string has its old value after a command that is not known.
        ("SET a 1\nHSET b f v\nBITOP NOT a b", &[][..], "1 BITOP, 1 HSET"),
        ("SET a 1\nPFADD a x", &[], "1 PFADD that failed"),
        ("PFADD a x\nHSET b f v\nPFMERGE a b\nPFADD a y", &[], "1 HSET, 1 PFMERGE"),
        ("SET a 1\nRESTORE a 0 x REPLACE\nAPPEND a x\nPEXPIREAT a 9000000000000", &[], "1 RESTORE"),
        ("SET a 1\nSORT l BY w STORE a\nSET l 1", &["l=1"], "1 SORT"),
        ("SET a 1\nSET b 1\nLMOVE a b LEFT LEFT", &[], "2 LMOVE"),
        ("SET a 1\nSET b 1\nEVAL script 1 a b", &["b=1"], "1 EVAL"),
        ("SET a x\nINCR a", &[], "1 INCR that failed"),
        // Nor where another key was given that name, from whatever database.
        ("SET a 1\nHSET h f v\nRENAME h a", &[], "1 HSET"),
        ("SET a 1\nSELECT 1\nHSET a f v\nCOPY a a DB 0 REPLACE\nDEL a", &[], "1 HSET"),
        ("SET a 1\nRENAME unknown a", &[], "1 RENAME"),
        // Until it is overwritten or removed.
        ("HSET a f v\nSET a 1 XX", &["a=1"], ""),
        ("SADD a x\nSPOP a\nSET a 1 NX", &["a=1"], ""),
        ("SADD a x\nSPOP a\nSETNX a 1\nINCR a", &["a=2"], ""),
        ("HSET a f v\nMSET a 1 b 2", &["a=1", "b=2"], ""),
        ("HSET a f v\nMSETEX 2 a 1 b 2", &["a=1", "b=2"], ""),
        ("SADD a x\nSPOP a\nMSETEX 1 a 1 NX", &["a=1"], ""),
        ("HSET a f v\nSET b 1\nBITOP OR a b", &["a=1", "b=1"], ""),
        ("HSET a f v\nDEL a\nINCR a", &["a=1"], ""),
        ("HSET a f v\nFLUSHDB\nAPPEND a 1", &["a=1"], ""),
        ("FUNCTION LOAD x\nSET a 1", &["a=1"], "1 FUNCTION"),
    ] {
        let expected = (keys.iter().map(|key| (*key).to_owned()).collect(), not_taken.to_owned());
        assert_eq!(replayed(lines), expected, "{lines}");
    }
}

#[test]
fn every_database_is_taken_or_the_one_that_is_asked_for() {
    let bytes = rdb(&[b"\xfe\x00\x00\x01a\x01b\xfe\x02\x00\x01c\x01d\x00\x01e\x01f"]);
    assert_eq!(rehearsed(&bytes, &[]).unwrap(), "would import 3 keys (0 with a TTL), 0 expired");
    let said = "would import 1 key (0 with a TTL), 0 expired, not taken: 2 keys of database 2 (--db 2 \
        takes them alone)";
    assert_eq!(rehearsed(&bytes, &["--db", "0"]).unwrap(), said);
    assert!(rehearsed(&bytes, &["--db", "2"]).unwrap().starts_with("would import 2 keys"));
    let commands = b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
    let said = rehearsed(commands, &["--db", "0"]).unwrap();
    assert!(said.contains("0 keys (0 with a TTL), 0 expired, not taken: 1 key of"), "{said}");
    for more in [&[][..], &["--db", "1"]] {
        assert!(rehearsed(commands, more).unwrap().starts_with("would import 1 key"), "{more:?}");
    }
}

#[test]
fn an_empty_file_is_not_a_whole_one() {
    for more in [&[][..], &["--format", "json"], &["--format", "redis"]] {
        let told = rehearsed(b"", more).unwrap_err();
        assert!(told.contains("is empty, so it is not whole"), "{told}");
    }
    assert!(rehearsed(b"\n", &["--format", "json"]).unwrap_err().contains("at byte 0"));
    assert!(rehearsed(b"", &["--format", "go-log"]).unwrap().starts_with("would import 0 keys"));

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let refused = || sources(directory.path(), Format::Auto).unwrap_err().to_string();
    std::fs::write(path("a.manifest"), "").unwrap();
    assert!(refused().ends_with("a.manifest: it names no file"));
    std::fs::write(path("a.manifest"), "file a.aof seq 1 type i\n").unwrap();
    std::fs::write(path("a.aof"), "").unwrap();
    assert_eq!(sources(directory.path(), Format::Auto).unwrap().len(), 1);
    std::fs::write(path("a.manifest"), "file a.aof seq 1 type b\n").unwrap();
    assert!(refused().contains("a.aof is empty"));
    std::fs::write(path("b.manifest"), "").unwrap();
    assert!(refused().ends_with("holds several manifests; name the one that is to be taken"));
    std::fs::write(path("kvlite.wal"), "").unwrap();
    assert_eq!(sources(directory.path(), Format::Auto).unwrap().len(), 1);
    std::fs::write(path("kvlite.snapshot"), "").unwrap();
    assert!(refused().contains("kvlite.snapshot is empty"));
}

#[test]
fn what_is_no_file_is_refused_before_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("kvlite.wal");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for path in [&pipe, directory.path(), Path::new("/dev/null")] {
        let told = sources(path, Format::Auto).unwrap_err().to_string();
        assert!(told.contains("is no file") && told.ends_with("write it to a file first"), "{told}");
    }
}

#[test]
fn only_the_last_file_may_end_in_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.manifest"), "file 1 seq 1 type i\nfile 2 seq 2 type i\n").unwrap();
    let progress = Progress::new();
    let own = own(directory.path(), &["--dry-run"]);
    for (first, second, is_taken) in
        [("SET a 1\nMULTI\nDEL a", "SET b 1", false), ("SET a 1", "MULTI\nDEL a", true)]
    {
        std::fs::write(path("1"), append_only(first)).unwrap();
        std::fs::write(path("2"), append_only(second)).unwrap();
        let mut report = Report::new(false, &progress);
        let imported = import(&own, None, &progress, &mut report);
        assert_eq!(imported.is_ok(), is_taken, "{imported:?}");
        assert_eq!(report.imported, u64::from(is_taken));
    }
}

#[test]
fn a_string_that_is_too_long_is_passed_over_and_not_unpacked() {
    // 600 MiB of zeros would be unpacked from it.
    let bytes = rdb(&[b"\x00\x01a\xc3\x05\x80\x25\x80\x00\x00\x00a\xe0\x5b\x00\x00\x01b\x01c"]);
    let said = "would import 1 key (0 with a TTL), 0 expired, not taken: 1 key that is too long";
    assert_eq!(rehearsed(&bytes, &[]).unwrap(), said);
    let behind = [&bytes[..], &append_only("RENAME a b")].concat();
    assert_eq!(rehearsed(&behind, &[]).unwrap(), said.replace("1 key (", "0 keys ("));
}

#[test]
fn the_options_are_those_of_the_server_and_its_own() {
    command().debug_assert();
}
