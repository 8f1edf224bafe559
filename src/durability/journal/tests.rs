//! A journal on a real log, without a server around it.

use std::io;

use shard::{Change, Span};
use wal::Place;

use super::*;
use crate::durability::disk_health::SLOW_SYNC;
use crate::net::{Backend, SocketId};

const REQUEST_ID: RequestId = RequestId { socket: SocketId { index: 0, generation: 0 }, sequence: 0 };

fn journal(directory: &std::path::Path, mode: &str) -> Journal {
    let place = Place { shard_index: 0, shard_count: 1, tag: 0 };
    let (log, _) =
        Log::recover::<wal::Error>(&OsDisk::default(), directory, place, 1 << 20, |_| Ok(())).unwrap();
    Journal::new(0, log, &Config::parse_from_args(["kvlite", "--sync-mode", mode], vec![0]).unwrap())
}

/// A journal in the mode `always` with one frame whose sync is under way, and an answer that waits for it.
fn syncing(directory: &std::path::Path, net: &mut Net, mesh: &mut Mesh) -> Journal {
    let mut journal = journal(directory, "always");
    journal.changes.push(&Change::Put { key: b"key", value: b"value", deadline_ms: None });
    journal.answer(journal.frame_behind_all(), 0, REQUEST_ID, Answer::Part(Reply::Ok), mesh);
    assert_eq!(journal.write(net, mesh), Outcome::AsBefore);
    journal
}

fn answers(mesh: &mut Mesh, net: &mut Net) -> Vec<Answer> {
    mesh.send(net);
    let mut answers = Vec::new();
    while let Some(mut batch) = mesh.receive(0) {
        answers.extend(batch.take_answers().into_iter().map(|(_, answer)| answer));
    }
    answers
}

fn end_sync(journal: &mut Journal, net: &mut Net, mesh: &mut Mesh) {
    for _ in 0..journal.commit.files_left() {
        journal.on_synced(Ok(()), net, mesh);
    }
}

#[test]
fn in_always_a_sync_never_meets_a_segment_that_is_only_allocated() {
    let first_data = |mode| {
        let directory = tempfile::tempdir().unwrap();
        let _journal = journal(directory.path(), mode);
        let file = std::fs::File::open(directory.path().join("reserve")).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).ok()
    };
    assert_eq!((first_data("always"), first_data("everysec")), (Some(0), None));
}

#[test]
fn what_changes_during_a_sync_is_written_and_synced_together_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = syncing(directory.path(), &mut net, &mut mesh);
    let first = journal.log.written_seq();
    for _ in 0..3 {
        journal.changes.push(&Change::Put { key: b"key", value: b"value", deadline_ms: None });
        journal.answer(journal.frame_behind_all(), 0, REQUEST_ID, Answer::Part(Reply::Ok), &mut mesh);
        assert!(journal.gathers(), "no client waits for these before the sync has ended");
    }
    assert!(answers(&mut mesh, &mut net).is_empty());
    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 1, "the first frame is on disk");
    assert_eq!(journal.log.written_seq(), first + 1, "three turns, one frame");
    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 3);

    let value = vec![0; GATHERED_CHANGE_BYTES_MAX];
    for _ in 0..2 {
        journal.changes.push(&Change::Put { key: b"key", value: &value, deadline_ms: None });
        assert!(!journal.gathers(), "what gathers is bounded");
        journal.write(&mut net, &mut mesh);
        assert_eq!(journal.log.buffered_bytes(), 0, "a write that is asked for happens, in a sync too");
    }
}

#[test]
fn a_sync_waits_for_those_who_were_answered_after_the_last_one_but_not_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = syncing(directory.path(), &mut net, &mut mesh);
    let change = |journal: &mut Journal, mesh: &mut Mesh| {
        journal.changes.push(&Change::Put { key: b"key", value: b"value", deadline_ms: None });
        journal.answer(journal.frame_behind_all(), 0, REQUEST_ID, Answer::Part(Reply::Ok), mesh);
    };
    let later = Duration::from_secs(3600);
    journal.expect_siblings(10);
    journal.commit_delay.set_delay(later);
    assert_eq!(journal.awaited_siblings(), None, "a sync is under way");
    change(&mut journal, &mut mesh);
    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 1);

    // Enough of them come.
    for awaited in (1..9).rev() {
        assert!(journal.gathers() && !journal.commit.is_under_way());
        assert_eq!(journal.awaited_siblings().map(|(count, _)| count), Some(awaited));
        change(&mut journal, &mut mesh);
    }
    assert!(!journal.gathers() && journal.awaited_siblings().is_none());
    journal.write(&mut net, &mut mesh);
    assert!(journal.commit.is_under_way());
    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 9);

    // None come, or too few.
    journal.commit_delay.move_end(|end| end - later);
    assert_eq!(journal.awaited_siblings(), None, "there is nothing to write");
    change(&mut journal, &mut mesh);
    assert_eq!(journal.awaited_siblings(), Some((8, Duration::ZERO)), "it is to be written now");
    assert!(!journal.gathers());

    // One client alone is not waited for.
    journal.commit_delay.move_end(|end| end + later);
    journal.expect_siblings(1);
    assert!(!journal.gathers() && journal.awaited_siblings().is_none());
}

#[test]
fn in_everysec_a_slow_sync_makes_those_wait_who_change_something() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = journal(directory.path(), "everysec");
    let command = shard::command::find(b"SET").expect("a command");
    let args = [Span { start: 0, len: 3 }, Span { start: 3, len: 5 }];
    let request = Request::new(command, b"keyvalue", &args);
    // One turn with one command; returns how many answers leave.
    let turn = |journal: &mut Journal, net: &mut Net, mesh: &mut Mesh, changed: bool| {
        if changed {
            journal.changes.push(&Change::Put { key: b"key", value: b"value", deadline_ms: None });
        }
        let seq = journal.frame_behind(&request, changed);
        journal.answer(seq, 0, REQUEST_ID, Answer::Part(Reply::Ok), mesh);
        journal.write(net, mesh);
        answers(mesh, net).len()
    };
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 1);
    journal.begin_sync(&mut net);
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 1, "a sync under way holds no writer up");
    journal.watch(2 * SLOW_SYNC, &mut mesh); // What had passed before it began says nothing of it.
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 1, "it has just begun");
    journal.watch(2 * SLOW_SYNC, &mut mesh);
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 0, "a slow one does");
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, false), 1, "but for those who only read");

    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 0, "it began before that change");
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 0, "no sync was fast yet");
    end_sync(&mut journal, &mut net, &mut mesh);
    assert_eq!(answers(&mut mesh, &mut net).len(), 2, "the next one has begun with both changes");
    assert_eq!(turn(&mut journal, &mut net, &mut mesh, true), 1, "and was fast");
}

#[test]
fn a_part_of_a_transaction_that_comes_after_a_failed_sync_frees_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = syncing(directory.path(), &mut net, &mut mesh);
    for _ in 0..journal.commit.files_left() {
        journal.on_synced(Err(io::ErrorKind::Other.into()), &mut net, &mut mesh);
    }
    answers(&mut mesh, &mut net);
    // The snapshot that helps begins only when no transaction has a lock.
    let seq = journal.append(Kind::Transaction { id: 1, participants: &[0, 1] });
    journal.answer(seq, 0, REQUEST_ID, Answer::Committed(Vec::new()), &mut mesh);
    journal.write(&mut net, &mut mesh);
    journal.watch(Duration::ZERO, &mut mesh);
    let given = answers(&mut mesh, &mut net);
    assert!(matches!(given[..], [Answer::Part(Reply::Error(Error::NotOnDisk { .. }))]), "{given:?}");
}

#[test]
fn the_end_of_a_log_does_not_pass_over_a_sync_that_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = syncing(directory.path(), &mut net, &mut mesh);
    assert!(journal.awaits_sync());
    let timeout = journal.health.timeout();
    (0..2).for_each(|_| assert!(!journal.watch(2 * timeout, &mut mesh)));
    assert!(!journal.awaits_sync(), "it hangs, and is not waited for any more");
    assert!(matches!(journal.close(), Err(wal::Error::SyncFailedBefore { .. })));
}

#[test]
fn after_a_failed_sync_only_a_snapshot_makes_the_log_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (mut net, mut mesh) = (Net::new(Backend::of_test()).unwrap(), Mesh::connect_all(1, 4).remove(0));
    let mut journal = syncing(directory.path(), &mut net, &mut mesh);
    assert!(answers(&mut mesh, &mut net).is_empty(), "the answer waits for the sync");
    assert_eq!(journal.refusal(), None);

    for _ in 0..journal.commit.files_left() {
        journal.on_synced(Err(io::ErrorKind::Other.into()), &mut net, &mut mesh);
    }
    let given = answers(&mut mesh, &mut net);
    assert!(matches!(given[..], [Answer::Part(Reply::Error(Error::NotOnDisk { .. }))]), "{given:?}");
    assert!(matches!(journal.refusal(), Some(Error::WritesRefused { .. })));
    journal.answer_synced(0, REQUEST_ID, &mut net, &mut mesh);
    let given = answers(&mut mesh, &mut net);
    assert!(matches!(given[..], [Answer::Part(Reply::Error(Error::NotOnDisk { .. }))]), "{given:?}");
    journal.write(&mut net, &mut mesh);
    assert!(!journal.commit.is_under_way() && journal.refusal().is_some(), "the sync is not repeated");

    let writer = journal.log.begin_snapshot().unwrap();
    let snapshot = journal.log.finish_snapshot(writer).unwrap();
    journal.log.retire(&snapshot).clear().unwrap();
    journal.write(&mut net, &mut mesh);
    assert_eq!(journal.refusal(), None);
    journal.answer_synced(0, REQUEST_ID, &mut net, &mut mesh);
    let given = answers(&mut mesh, &mut net);
    assert!(matches!(given[..], [Answer::Part(Reply::Ok)]), "{given:?}");
}
