use std::fmt;

use shard::command::{self, Group, Run};
use shard::{Changes, Command, Reply, Request, Shard, Span};

use crate::dice::Dice;
use crate::model::VALUE_LEN_MAX;

/// One request, free of any buffer.
pub struct Call {
    pub row: &'static Command,
    /// The number of the database.
    pub database: u16,
    pub args: Vec<Vec<u8>>,
}

impl Call {
    /// A request in database 0.
    pub fn new(name: &str, args: &[&[u8]]) -> Call {
        let row = command::find(name.as_bytes()).expect("a command of the table");
        Call { row, database: 0, args: args.iter().map(|arg| arg.to_vec()).collect() }
    }

    pub fn run(&self, shard: &mut Shard, now_ms: u64, changes: &mut Changes) -> Reply<'static> {
        let mut start = 0;
        let spans: Vec<Span> = (self.args.iter())
            .map(|arg| {
                start += arg.len();
                Span { start: (start - arg.len()) as u32, len: arg.len() as u32 }
            })
            .collect();
        let buffer = self.args.concat();
        let request = Request::new(self.row, &buffer, &spans).in_database(self.database);
        shard.execute(&request, now_ms, changes).into_owned()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in database {}", self.row.name, self.database)?;
        self.args.iter().try_for_each(|arg| write!(f, " \"{}\"", arg.escape_ascii()))
    }
}

/// The keys and the sizes of random requests.
#[derive(Clone, Copy)]
pub struct Mix {
    /// The number of different keys.
    pub keys: usize,
    /// The greatest number of keys in one request.
    pub keys_per_request: usize,
}

/// Whether the commands of this row run on a shard.
fn runs_on_a_shard(row: &&Command) -> bool {
    // How keys were used is not part of the model's state. What Redis writes into values is for tests that know it.
    let is_of_format = row.group == Group::Hyperloglog || matches!(row.name, "DUMP" | "RESTORE");
    // A script is made of other commands, and a shard alone knows no language.
    let is_script = row.group == Group::Scripting;
    !matches!(row.run, Run::Server(_)) && row.name != "ANALYZE" && !is_of_format && !is_script
}

impl Mix {
    /// A random request; its number of arguments is one that the protocols let through.
    pub fn call(self, dice: &mut Dice) -> Call {
        let rows: Vec<_> = command::TABLE.iter().filter(runs_on_a_shard).collect();
        let row = loop {
            let row = *dice.pick(&rows);
            // Whatever there is would always be small if everything were removed as often as anything else.
            let clears = matches!(row.name, "CLEAR" | "FLUSHALL" | "FLUSHDB");
            if !clears || dice.one_in(8) {
                break row;
            }
        };
        let row = if dice.one_in(5) { command::find(b"SET").expect("a command of the table") } else { row };
        self.call_of(row, dice)
    }

    fn call_of(self, row: &'static Command, dice: &mut Dice) -> Call {
        let args = match row.name {
            "GET" | "GETDEL" | "STRLEN" | "INCR" | "DECR" | "PERSIST" | "TTL" | "PTTL" | "EXPIRETIME"
            | "PEXPIRETIME" | "TYPE" => {
                vec![self.key(dice)]
            }
            "APPEND" | "DELIFEQ" | "GETSET" | "SETNX" => vec![self.key(dice), value(dice)],
            "DECRBY" | "INCRBY" => vec![self.key(dice), integer(dice)],
            "DEL" | "DELETE" | "MDEL" | "UNLINK" | "EXISTS" | "TOUCH" | "MGET" => {
                (0..=dice.below(self.keys_per_request)).map(|_| self.key(dice)).collect()
            }
            "GETRANGE" | "SUBSTR" => vec![self.key(dice), index(dice), index(dice)],
            "SETRANGE" => vec![self.key(dice), index(dice), value(dice)],
            "GETBIT" => vec![self.key(dice), bit_offset(dice)],
            "SETBIT" => vec![self.key(dice), bit_offset(dice), bit(dice)],
            "BITCOUNT" => [vec![self.key(dice)], bit_range(dice)].concat(),
            "BITPOS" => [vec![self.key(dice), bit(dice)], bit_range(dice)].concat(),
            "BITFIELD" | "BITFIELD_RO" => {
                let mut args = vec![self.key(dice)];
                (0..dice.below(4)).for_each(|_| args.extend(field_step(dice, row.name)));
                args
            }
            "GETEX" => [vec![self.key(dice)], getex_options(dice)].concat(),
            "INCRBYFLOAT" => vec![self.key(dice), float(dice)],
            "RENAME" | "RENAMENX" => vec![self.key(dice), self.key(dice)],
            "COPY" => [vec![self.key(dice), self.key(dice)], copy_options(dice)].concat(),
            "LCS" => {
                let mut args = vec![self.key(dice), self.key(dice)];
                args.extend((0..dice.below(2)).map(|_| b"len".to_vec()));
                args
            }
            "BITOP" => {
                let operation = dice.pick(&["AND", "or", "XOR", "NOT", "not", "NOR"]).as_bytes().to_vec();
                let keys = (0..2 + dice.below(self.keys_per_request)).map(|_| self.key(dice));
                [operation].into_iter().chain(keys).collect()
            }
            "MSETEX" => {
                let pairs = 1 + dice.below(self.keys_per_request);
                let said = if dice.one_in(10) { integer(dice) } else { pairs.to_string().into_bytes() };
                let mut args = vec![said];
                (0..pairs).for_each(|_| args.extend([self.key(dice), value(dice)]));
                match dice.below(6) {
                    0 => args.push(dice.pick(&["NX", "xx", "KEEPTTL", "GET"]).as_bytes().to_vec()),
                    1 => args.extend([b"NX".to_vec(), b"EX".to_vec(), seconds(dice)]),
                    2 => args.extend([b"pxat".to_vec(), unix_milliseconds(dice)]),
                    _ => {}
                }
                args
            }
            "MSET" | "MSETNX" => {
                let pairs = 1 + dice.below(self.keys_per_request);
                let surplus = usize::from(dice.one_in(10));
                (0..2 * pairs + surplus)
                    .map(|at| if at % 2 == 0 { self.key(dice) } else { value(dice) })
                    .collect()
            }
            "MOVE" => vec![self.key(dice), database(dice)],
            "SWAPDB" => vec![database(dice), database(dice)],
            "SET" => [vec![self.key(dice), value(dice)], set_options(dice)].concat(),
            "PSETEX" => vec![self.key(dice), milliseconds(dice), value(dice)],
            "SETEX" => vec![self.key(dice), seconds(dice), value(dice)],
            "EXPIRE" => [vec![self.key(dice), seconds(dice)], expire_options(dice)].concat(),
            "PEXPIRE" => [vec![self.key(dice), milliseconds(dice)], expire_options(dice)].concat(),
            "EXPIREAT" => [vec![self.key(dice), unix_seconds(dice)], expire_options(dice)].concat(),
            "PEXPIREAT" => [vec![self.key(dice), unix_milliseconds(dice)], expire_options(dice)].concat(),
            "CLEAR" | "FLUSHALL" | "FLUSHDB" if dice.one_in(2) => {
                vec![dice.pick(&[&b"ASYNC"[..], b"sync", b"now"]).to_vec()]
            }
            "CLEAR" | "FLUSHALL" | "FLUSHDB" | "DBSIZE" => vec![],
            name => panic!("the simulation does not know {name}: teach it to the requests and to the model"),
        };
        let database = if dice.one_in(2) { 0 } else { dice.below(3) as u16 };
        Call { row, database, args }
    }

    fn key(self, dice: &mut Dice) -> Vec<u8> {
        match dice.below(self.keys) {
            0 => vec![],
            1 => b"\0\xff\r\n{".to_vec(),
            2 => vec![b'k'; 300],
            index => format!("{{{}}}:{index}", index % 5).into_bytes(),
        }
    }
}

fn database(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => integer(dice),
        1 => dice.pick(&["15", "16", "2147483648"]).as_bytes().to_vec(),
        _ => dice.below(3).to_string().into_bytes(),
    }
}

fn value(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0..4 => integer(dice),
        4 => vec![],
        5 => vec![0xee; dice.below(VALUE_LEN_MAX + 20)],
        _ => (0..dice.below(24)).map(|_| dice.roll() as u8).collect(),
    }
}

fn integer(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => i64::MAX.to_string(),
        1 => i64::MIN.to_string(),
        2 => {
            (*dice.pick(&["", "-", "-0", "007", "+1", " 1", "1.0", "ten", "9223372036854775808"])).to_owned()
        }
        3 => (dice.roll() as i64).to_string(),
        _ => (dice.below(200) as i64 - 100).to_string(),
    }
    .into_bytes()
}

fn float(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 => integer(dice),
        1 => dice.pick(&["inf", "1e4932", "-0x1p4", "5.0e3", "1e", " 1"]).as_bytes().to_vec(),
        _ => format!("{}.{}", dice.below(200) as i64 - 100, dice.below(1000)).into_bytes(),
    }
}

/// An index into a value.
fn index(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 => integer(dice),
        1 => dice.pick(&["-401", "-400", "399", "400", "401"]).as_bytes().to_vec(),
        _ => (dice.below(40) as i64 - 12).to_string().into_bytes(),
    }
}

fn seconds(dice: &mut Dice) -> Vec<u8> {
    match dice.below(16) {
        0 => integer(dice),
        1 => dice.pick(&["0", "-1", "-9223372036854775", "9223372036854775", "1.5"]).as_bytes().to_vec(),
        _ => (1 + dice.below(8)).to_string().into_bytes(),
    }
}

fn milliseconds(dice: &mut Dice) -> Vec<u8> {
    match dice.below(16) {
        0 => integer(dice),
        _ => (1 + dice.below(4000)).to_string().into_bytes(),
    }
}

/// Simulated time is between one and some thousand seconds.
fn unix_seconds(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(16) { integer(dice) } else { (900 + dice.below(400)).to_string().into_bytes() }
}

fn unix_milliseconds(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(16) { integer(dice) } else { (990_000 + dice.below(200_000)).to_string().into_bytes() }
}

fn bit(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(12) { integer(dice) } else { dice.below(2).to_string().into_bytes() }
}

fn bit_offset(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 => integer(dice),
        1 => dice.pick(&["3199", "3200", "4294967295", "4294967296", "-1"]).as_bytes().to_vec(),
        _ => dice.below(200).to_string().into_bytes(),
    }
}

fn bit_range(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut range: Vec<_> = (0..dice.below(3)).map(|_| index(dice)).collect();
    if range.len() == 2 && dice.one_in(2) {
        range.push(dice.pick(&["BIT", "byte", "bit", "nibble"]).as_bytes().to_vec());
    }
    range
}

/// One thing that BITFIELD does; the one that only reads is told to write less often.
fn field_step(dice: &mut Dice, command: &str) -> Vec<Vec<u8>> {
    let reads = dice.below(if command == "BITFIELD" { 3 } else { 30 }) != 0;
    if !reads || dice.one_in(6) && command == "BITFIELD" {
        let overflow = *dice.pick(&["WRAP", "sat", "FAIL", "FAIL", "never"]);
        if dice.one_in(3) {
            return vec![b"OVERFLOW".to_vec(), overflow.as_bytes().to_vec()];
        }
        let name = *dice.pick(&["SET", "INCRBY", "incrby"]);
        return vec![name.as_bytes().to_vec(), field_type(dice), field_offset(dice), integer(dice)];
    }
    vec![b"GET".to_vec(), field_type(dice), field_offset(dice)]
}

fn field_type(dice: &mut Dice) -> Vec<u8> {
    match dice.below(16) {
        0 => dice.pick(&["u64", "i65", "u0", "8", "", "i-1"]).as_bytes().to_vec(),
        1 => b"i64".to_vec(),
        2 => b"u63".to_vec(),
        sign => format!("{}{}", if sign < 9 { 'i' } else { 'u' }, 1 + dice.below(63)).into_bytes(),
    }
}

fn field_offset(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(4) { format!("#{}", dice.below(6)).into_bytes() } else { bit_offset(dice) }
}

fn set_options(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut options = Vec::new();
    while options.len() < 6 && dice.one_in(2) {
        match dice.below(11) {
            10 => options.extend([b"ifeq".to_vec(), value(dice)]),
            0..5 => options.push(dice.pick(&["NX", "xx", "GET", "KEEPTTL", "keepttl"]).as_bytes().to_vec()),
            5 => options.push(dice.pick(&["EX", "NY", "", "GE"]).as_bytes().to_vec()),
            6 => options.extend([b"EX".to_vec(), seconds(dice)]),
            7 => options.extend([b"PX".to_vec(), (1 + dice.below(4000)).to_string().into_bytes()]),
            // Simulated time is between one and some thousand seconds.
            8 => options.extend([b"exat".to_vec(), (900 + dice.below(400)).to_string().into_bytes()]),
            _ => options.extend([b"PXAT".to_vec(), (990_000 + dice.below(200_000)).to_string().into_bytes()]),
        }
    }
    options
}

fn copy_options(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut options = Vec::new();
    while options.len() < 4 && dice.one_in(2) {
        match dice.below(6) {
            0 => options.push(dice.pick(&["NX", "DB", ""]).as_bytes().to_vec()),
            1..4 => options.push(dice.pick(&["REPLACE", "replace"]).as_bytes().to_vec()),
            _ => options.extend([b"db".to_vec(), database(dice)]),
        }
    }
    options
}

fn getex_options(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut options = Vec::new();
    while options.len() < 4 && dice.one_in(2) {
        match dice.below(6) {
            0 => options.push(dice.pick(&["PERSIST", "persist", "EX", "KEEPTTL"]).as_bytes().to_vec()),
            1 | 2 => options.extend([b"EX".to_vec(), seconds(dice)]),
            3 => options.extend([b"px".to_vec(), milliseconds(dice)]),
            4 => options.extend([b"EXAT".to_vec(), (900 + dice.below(400)).to_string().into_bytes()]),
            _ => options.extend([b"pxat".to_vec(), (990_000 + dice.below(200_000)).to_string().into_bytes()]),
        }
    }
    options
}

fn expire_options(dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut options = Vec::new();
    while options.len() < 3 && dice.one_in(2) {
        options.push(dice.pick(&["NX", "XX", "gt", "LT", "GT", "AB"]).as_bytes().to_vec());
    }
    options
}

#[test]
fn every_command_of_a_shard_is_simulated() {
    let mut dice = Dice::new(1);
    let mix = Mix { keys: 9, keys_per_request: 3 };
    let mut model = crate::model::Model::default();
    for row in command::TABLE.iter().filter(runs_on_a_shard) {
        for _ in 0..50 {
            let call = mix.call_of(row, &mut dice);
            assert!((row.args_min..=row.args_max).contains(&call.args.len()), "{call}");
            model.execute(&call, 1_000_000);
        }
    }
}
