//! The data directory: its manifest and layouts, what is missing in it, what belongs to another one, and its lock.

use super::*;

const NO_WAIT: Duration = Duration::ZERO;

fn data() -> &'static Path {
    Path::new("/data")
}

fn open_data(disk: &MemDisk) -> Result<DataDir<MemDisk>, Error> {
    DataDir::open(disk.clone(), data(), NO_WAIT)
}

#[test]
fn a_new_layout_counts_once_it_is_active() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), None);
    let first = data_dir.create_layout(2, TAG).unwrap();
    data_dir.activate(first.clone()).unwrap();
    let second = data_dir.create_layout(3, TAG).unwrap();
    assert_eq!((first.id, second.id), (1, 2));
    let place = Place { shard_index: 2, shard_count: 3, tag: TAG };
    let mut writer = SnapshotWriter::create(&disk, &second.shard_dir(2), place).unwrap();
    writer.append(Kind::Batch, 1, b"moved").unwrap();
    writer.finish().unwrap();
    drop(data_dir);

    let mut data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), Some(&first));
    assert!(
        disk.open_dir(&second.shard_dir(2)).is_ok(),
        "nothing is removed before the layout that counts is read"
    );
    data_dir.remove_leftovers().unwrap();
    assert!(disk.open_dir(&second.shard_dir(2)).is_err(), "an unfinished layout is removed");
    let second = data_dir.create_layout(3, TAG).unwrap();
    let mut writer = SnapshotWriter::create(&disk, &second.shard_dir(2), place).unwrap();
    writer.append(Kind::Batch, 1, b"moved").unwrap();
    writer.finish().unwrap();
    data_dir.activate(second.clone()).unwrap();
    assert!(disk.open_dir(&first.shard_dir(0)).is_err(), "the old layout is removed");
    drop(data_dir);

    let data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), Some(&second));
    let mut replay = Vec::new();
    let (mut log, recovered) = Log::recover(&disk, &second.shard_dir(2), place, 4096, |record| {
        replay.extend_from_slice(record.payload);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!((replay.as_slice(), recovered.next_seq), (&b"moved"[..], 1));
    assert_eq!(log.append(Kind::Batch, 1, b"next"), 1);
    log.close().unwrap();
}

#[test]
fn a_directory_that_is_being_filled_is_refused_until_it_is_complete() {
    let fill = |disk: &MemDisk| {
        let mut data_dir = DataDir::begin(disk.clone(), data(), NO_WAIT)?;
        let layout = data_dir.create_layout(1, TAG)?;
        let mut writer = SnapshotWriter::create(disk, &layout.shard_dir(0), layout.place(0))?;
        writer.append(Kind::Batch, 1, b"salvaged")?;
        writer.finish()?;
        data_dir.activate(layout)
    };
    let mut counted = [0, 0];
    for stop in 1.. {
        let disk = MemDisk::default();
        disk.fail_from(stop, std::io::ErrorKind::StorageFull);
        let filled = fill(&disk);
        for left in [disk.fork(), disk.power_cut(stop)] {
            left.heal();
            // Nothing tells a directory without any file from a new one.
            if left.list(data()).is_ok_and(|names| !names.is_empty()) {
                let opened = open_data(&left);
                counted[usize::from(opened.is_ok())] += 1;
                match opened {
                    Ok(opened) => {
                        assert!(opened.layout().is_some(), "stop {stop}: it is taken for a new one");
                    }
                    Err(error) => assert!(matches!(error, Error::Unfinished { .. }), "stop {stop}: {error}"),
                }
            }
        }
        if filled.is_ok() {
            break;
        }
    }
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
}

#[test]
fn the_manifest_is_the_one_that_is_drawn_and_no_damage_passes() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(4, TAG).unwrap();
    data_dir.activate(layout).unwrap();
    drop(data_dir);
    let path = data().join("MANIFEST");
    let good = disk.read(&path).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&good),
        "kvlite manifest 3\nlayout 1\nshards 4\ntag 0a0b0c0d\ncrc32 e291bd12\n"
    );
    for bit in 0..good.len() * 8 {
        let disk = disk.fork();
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.damage(&path, &bytes);
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "bit {bit}");
    }
    for len in 0..good.len() {
        let disk = disk.fork();
        disk.damage(&path, &good[..len]);
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "cut at {len}");
    }
    for shards in ["0", "65536", "4000000000", "-1"] {
        let disk = disk.fork();
        let lines = format!("kvlite manifest 3\nlayout 1\nshards {shards}\ntag 0a0b0c0d\n");
        let crc = crc32fast::hash(lines.as_bytes());
        disk.damage(&path, format!("{lines}crc32 {crc:08x}\n").as_bytes());
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "{shards} shards");
    }
    disk.damage(&path, b"kvlite manifest 4\nwhatever it says\ncrc32 eb70095a\n");
    assert!(matches!(open_data(&disk), Err(Error::NewerVersion { found: 4, supported: 3, .. })));
}

#[test]
fn log_files_without_a_manifest_are_never_taken_for_an_empty_directory() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(1, TAG).unwrap();
    drop(data_dir);
    assert_eq!(open_data(&disk).unwrap().layout(), None, "empty directories are an unfinished start");

    data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(layout.shards, TAG).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    let place = Place { shard_index: 0, shard_count: 1, tag: TAG };
    let (mut log, _) =
        Log::recover(&disk, &layout.shard_dir(0), place, 4096, |_| Ok::<_, Error>(())).unwrap();
    log.append(Kind::Batch, 1, b"x");
    log.close().unwrap();
    drop(data_dir);
    disk.remove_file(&data().join("MANIFEST")).unwrap();
    match open_data(&disk).unwrap_err() {
        Error::MissingManifest { path, found } => {
            assert!(found.starts_with(layout.shard_dir(0)));
            for path in [path, found, layout.shard_dir(0)] {
                assert_eq!(wal::data_dir_of(&path), Some(data()), "{}", path.display());
            }
        }
        error => panic!("{error}"),
    }
    assert!(disk.open_dir(&layout.shard_dir(0)).is_ok(), "nothing is removed");
}

/// A data directory with a log of three frames in each of two shards.
fn two_logs() -> (MemDisk, wal::Layout) {
    two_logs_of(TAG)
}

fn two_logs_of(tag: u32) -> (MemDisk, wal::Layout) {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(2, tag).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    for shard_index in 0..2 {
        let place = layout.place(shard_index);
        let directory = layout.shard_dir(shard_index);
        let (mut log, _) = Log::recover(&disk, &directory, place, 4096, |_| Ok::<_, Error>(())).unwrap();
        write(&mut log, 3);
        log.close().unwrap();
    }
    (disk, layout)
}

#[test]
fn what_is_known_of_a_log_without_a_manifest_is_never_taken_for_an_empty_directory() {
    let (disk, layout) = two_logs();
    let own = layout.shard_dir(0);
    disk.remove_file(&data().join("MANIFEST")).unwrap();
    for directory in [&own, &layout.shard_dir(1)] {
        for name in disk.list(directory).unwrap().iter().filter(|name| name.ends_with(".log")) {
            disk.remove_file(&directory.join(name)).unwrap();
        }
    }
    for left in [own.join("synced"), layout.shard_dir(1).join("synced"), data().join("layout-1.synced")] {
        let error = open_data(&disk).unwrap_err();
        assert!(matches!(&error, Error::MissingManifest { found, .. } if *found == left), "{error}");
        disk.remove_file(&left).unwrap();
    }
    assert_eq!(open_data(&disk).unwrap().layout(), None, "nothing tells of any data");
}

/// How many records each shard has, as a start reads them, or why it does not; and whether a note of it was lacking.
fn start(disk: &MemDisk, layout: &wal::Layout) -> Result<Vec<(usize, bool)>, Error> {
    open_data(disk)?;
    let each = (0..layout.shards).map(|shard_index| {
        let mut records = 0;
        let (_, recovered) =
            Log::recover(disk, &layout.shard_dir(shard_index), layout.place(shard_index), 4096, |_| {
                records += 1;
                Ok::<_, Error>(())
            })?;
        Ok((records, recovered.lacking_synced.is_some()))
    });
    each.collect()
}

#[test]
fn one_of_the_two_places_that_tell_of_a_log_will_do_and_the_other_is_written_again() {
    let (disk, layout) = two_logs();
    let own = layout.shard_dir(1).join("synced");
    let slots = data().join("layout-1.synced");
    for (path, lacking) in [(&own, [false, true]), (&slots, [true, true])] {
        let damages: [&dyn Fn(&MemDisk); 3] =
            [&|disk| disk.remove_file(path).unwrap(), &|disk| disk.damage(path, b""), &|disk| {
                disk.damage(path, &vec![0; disk.read(path).unwrap().len()]);
            }];
        for (index, damage) in damages.iter().enumerate() {
            let disk = disk.fork();
            damage(&disk);
            let what = format!("damage {index} of {}", path.display());
            assert_eq!(start(&disk, &layout).unwrap(), [(3, lacking[0]), (3, lacking[1])], "{what}");
            assert_eq!(start(&disk, &layout).unwrap(), [(3, false), (3, false)], "{what}, again");
        }
        // Each of both tells that the log is missing.
        let disk = disk.fork();
        disk.remove_file(path).unwrap();
        disk.remove_file(&layout.shard_dir(1).join("00000000000000000001.log")).unwrap();
        assert!(matches!(start(&disk, &layout), Err(Error::MissingFrames { seq: 1, .. })));
    }
    disk.remove_file(&own).unwrap();
    disk.remove_file(&slots).unwrap();
    for _ in 0..2 {
        assert!(
            matches!(start(&disk, &layout), Err(Error::MissingSynced { path, copy }) if (&path, &copy) == (&own, &slots))
        );
    }
}

/// Other programs' files among the directories harm nothing, and do not stay where a layout is removed.
#[test]
fn a_stray_file_where_directories_belong_does_no_harm() {
    let (disk, layout) = two_logs();
    disk.create_dir_all(Path::new("/data/layout-7")).unwrap();
    for path in ["/data/layout-1/.DS_Store", "/data/layout-7/notes.txt", "/data/layout-9"] {
        disk.damage(Path::new(path), b"x");
    }
    start(&disk, &layout).unwrap();
    let mut data_dir = open_data(&disk).unwrap();
    let second = data_dir.create_layout(1, TAG).unwrap();
    data_dir.activate(second.clone()).unwrap();
    drop(data_dir);
    assert_eq!(open_data(&disk).unwrap().layout(), Some(&second));
    assert!(disk.open_dir(&layout.shard_dir(0)).is_err(), "the old layout is removed");
}

/// Puts files of one disk on another one, under the same names.
fn transplant<'p>(from: &MemDisk, to: &MemDisk, paths: impl IntoIterator<Item = &'p PathBuf>) {
    paths.into_iter().for_each(|path| to.damage(path, &from.read(path).unwrap()));
}

#[test]
fn files_of_another_data_directory_are_refused() {
    let ((disk, layout), (other, _)) = (two_logs(), two_logs_of(TAG + 1));
    let directory = layout.shard_dir(1);
    let segment = directory.join("00000000000000000001.log");
    let (own, slots) = (directory.join("synced"), data().join("layout-1.synced"));
    for taken in [vec![&segment], vec![&segment, &own], vec![&segment, &slots], vec![&own, &slots]] {
        let disk = disk.fork();
        transplant(&other, &disk, taken.iter().copied());
        let error = start(&disk, &layout).unwrap_err();
        let (expected, found) = (TAG, TAG + 1);
        assert!(
            matches!(&error, Error::OtherLayout { path, expected: e, found: f }
                if taken.contains(&path) && (*e, *f) == (expected, found)),
            "{taken:?}: {error}"
        );
        let salvage = Salvage::plan(&disk, &directory, layout.place(1)).unwrap();
        let is_named = |loss: &Loss| matches!(loss, Loss::OtherLayout { path, .. } if *path == segment);
        assert_eq!(
            salvage.losses().iter().any(is_named),
            taken.contains(&&segment),
            "{:?}",
            salvage.losses()
        );
    }
    // What is known of the log is known from the other place as well.
    transplant(&other, &disk, [&own]);
    assert_eq!(start(&disk, &layout).unwrap(), [(3, false), (3, true)]);
}

/// Both were one directory, and have the same tag.
#[test]
fn files_of_a_copy_that_went_on_are_refused() {
    let (disk, layout) = two_logs();
    let copy = disk.fork();
    let directory = layout.shard_dir(1);
    for (disk, payload) in [(&disk, b"original"), (&copy, b"the copy")] {
        let (mut log, _) =
            Log::recover(disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
        for _ in 0..3 {
            log.append(Kind::Batch, 1, payload);
            let durable_seq = log.sync().unwrap();
            log.settle(durable_seq);
            log.note_progress();
        }
        log.close().unwrap();
    }
    let names = disk.list(&directory).unwrap();
    let newest: PathBuf = directory.join(names.iter().rfind(|name| name.ends_with(".log")).unwrap());
    let all: Vec<_> = copy.list(&directory).unwrap().iter().map(|name| directory.join(name)).collect();
    for taken in [vec![newest.clone()], all] {
        let disk = disk.fork();
        transplant(&copy, &disk, &taken);
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::OtherFrame { path, .. } if *path == newest), "{taken:?}: {error}");
        let salvage = Salvage::plan(&disk, &directory, layout.place(1)).unwrap();
        let is_named = |loss: &Loss| matches!(loss, Loss::OtherFrame { path, .. } if *path == newest);
        assert!(salvage.losses().iter().any(is_named), "{:?}", salvage.losses());
    }
    // Each of both is sound.
    assert!(start(&disk, &layout).is_ok() && start(&copy, &layout).is_ok());
}

/// That it is there is on disk before what it replaces is gone.
#[test]
fn a_missing_snapshot_is_missed_also_after_a_power_cut() {
    for seed in 0..32 {
        let (disk, layout) = two_logs();
        let directory = layout.shard_dir(1);
        let (mut log, _) =
            Log::recover(&disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
        write(&mut log, 3);
        let mut writer = log.begin_snapshot().unwrap();
        writer.append(Kind::Batch, 1, b"all").unwrap();
        let snapshot = log.finish_snapshot(writer).unwrap();
        log.retire(&snapshot).clear().unwrap();
        let disk = disk.power_cut(seed);
        disk.remove_file(&snapshot.path).unwrap();
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::MissingSnapshot { .. }), "seed {seed}: {error}");
    }
}

/// There may be more segments than the process may open files.
#[test]
fn a_replay_has_few_files_open() {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::default();
    let (mut log, _, _) = try_open(&disk, directory.path(), 256).unwrap();
    for _ in 0..100 {
        log.append(Kind::Batch, 1, &[7; 100]);
        log.flush().unwrap();
    }
    log.close().unwrap();
    let segments = disk.list(directory.path()).unwrap().iter().filter(|name| name.ends_with(".log")).count();
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        targets.filter(|target| target.starts_with(directory.path())).count()
    };
    let mut open_max = 0;
    wal::check(&disk, directory.path(), PLACE, |_| {
        open_max = open_max.max(open_files());
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(segments >= 50 && (1..=2).contains(&open_max), "{open_max} open files, {segments} segments");
}

/// What a start would have to remove or to write over, and cannot.
#[test]
fn a_directory_under_the_name_of_a_file_is_refused() {
    for name in ["spare", "reserve", "staged", "snapshot.tmp", "synced", "00000000000000000009.log"] {
        let (disk, layout) = two_logs();
        let path = layout.shard_dir(1).join(name);
        if disk.open(&path).is_ok() {
            disk.remove_file(&path).unwrap();
        }
        disk.create_dir_all(&path).unwrap();
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{name}: {error}");
    }
}

#[test]
fn an_emptied_or_older_directory_of_a_shard_is_refused() {
    let (disk, layout) = two_logs();
    let directory = layout.shard_dir(1);
    let names = disk.list(&directory).unwrap();
    let older: Vec<_> =
        names.iter().map(|name| (directory.join(name), disk.read(&directory.join(name)).unwrap())).collect();
    let (mut log, _) =
        Log::recover(&disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
    write(&mut log, 2);
    log.close().unwrap();
    for name in disk.list(&directory).unwrap() {
        disk.remove_file(&directory.join(name)).unwrap();
    }
    assert!(matches!(start(&disk, &layout), Err(Error::MissingFrames { seq: 1, .. })));
    for (path, bytes) in older {
        disk.damage(&path, &bytes);
    }
    assert!(matches!(
        start(&disk, &layout),
        Err(Error::DamagedFrame { seq: 5, .. } | Error::MissingFrames { seq: 5, .. })
    ));
}

#[test]
fn a_manifest_that_names_an_older_layout_than_the_one_in_use_is_refused() {
    let (disk, first) = two_logs();
    let manifest = data().join("MANIFEST");
    let older = disk.read(&manifest).unwrap();
    let mut data_dir = open_data(&disk).unwrap();
    let second = data_dir.create_layout(1, TAG).unwrap();
    data_dir.activate(second.clone()).unwrap();
    drop(data_dir);
    let (mut log, _) =
        Log::recover(&disk, &second.shard_dir(0), second.place(0), 4096, |_| Ok::<_, Error>(())).unwrap();
    write(&mut log, 1);
    drop(log);
    disk.damage(&manifest, &older);
    for shard_index in 0..2 {
        disk.create_dir_all(&first.shard_dir(shard_index)).unwrap();
    }
    assert!(matches!(open_data(&disk), Err(Error::NewerLayout { .. })));
    assert!(disk.open_dir(&second.shard_dir(0)).is_ok(), "nothing is removed");
}

#[test]
fn a_directory_that_the_manifest_names_has_to_exist() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(2, TAG).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    drop(data_dir);
    disk.remove_dir_all(&layout.shard_dir(1)).unwrap();
    assert!(matches!(open_data(&disk), Err(Error::MissingDirectory { path }) if path == layout.shard_dir(1)));
}

#[test]
fn two_owners_never_share_a_directory() {
    let disk = MemDisk::default();
    let first = open_data(&disk).unwrap();
    let error = open_data(&disk).unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if *path == data().join("LOCK")), "{error}");
    drop(first);
    open_data(&disk).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/data");
    let first = DataDir::open(OsDisk::default(), &path, NO_WAIT).unwrap();
    assert!(matches!(
        DataDir::open(OsDisk::default(), &path, Duration::from_millis(40)),
        Err(Error::Locked { .. })
    ));
    drop(first);
    DataDir::open(OsDisk::default(), &path, NO_WAIT).unwrap();
}
