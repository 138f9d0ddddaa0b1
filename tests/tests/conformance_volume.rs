//! Storage on a real disk, through its public face: install, resume, repair, serve, and what is refused.

use peas_core::config::CreateOptions;
use peas_core::hash::SpanVerifier;
use peas_core::session::{create, read_pea, verify, write_pea};
use peas_core::storage::{CommitEnd, Opened, PublishError, ReadEnd, Storage, StorageOptions};
use peas_core::unit::{BLOCK_BYTES, PieceIdx};
use peas_core::{Error, TrustedManifest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const GO_ON: &(dyn Fn(u64, u64) -> bool + Sync) = &|_, _| true;

fn options() -> StorageOptions {
    StorageOptions { threads: 2, pooled_bytes_max: 8 << 20 }
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A tree with all that a pea can hold.
fn make_tree(at: &Path, seed: u64) {
    fs::create_dir_all(at.join("data/deep")).unwrap();
    fs::create_dir_all(at.join("hollow")).unwrap();
    fs::write(at.join("data/large"), noise(seed, 700_001)).unwrap();
    fs::write(at.join("data/deep/small"), noise(seed + 1, 10)).unwrap();
    fs::write(at.join("data/empty"), b"").unwrap();
    fs::write(at.join("run"), noise(seed + 2, 70_000)).unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("data/large", at.join("shortcut")).unwrap();
}

fn pea_of(at: &Path) -> Arc<TrustedManifest> {
    Arc::new(create(at, &CreateOptions { piece_bytes: Some(65_536), ..Default::default() }, GO_ON).unwrap().manifest)
}

/// The content's bytes, end to end.
fn content_of(pea: &TrustedManifest, at: &Path) -> Vec<u8> {
    use peas_core::manifest::EntryKind;
    let mut all = Vec::new();
    for entry in pea.entries() {
        if let EntryKind::File { .. } = entry.kind {
            all.extend(if pea.is_single_file() { fs::read(at).unwrap() } else { fs::read(at.join(&entry.path)).unwrap() });
        }
    }
    all
}

fn open(pea: &Arc<TrustedManifest>, dest: &Path) -> Opened {
    Storage::open_install(pea.clone(), dest, &options(), GO_ON).unwrap()
}

fn commit(storage: &Storage, pea: &TrustedManifest, piece: PieceIdx, content: &[u8]) -> CommitEnd {
    let range = pea.geometry().bytes_of(piece);
    let mut buf = storage.buffer(piece);
    buf.copy_from_slice(&content[range.start as usize..range.end as usize]);
    let (send, receive) = channel();
    storage.commit(piece, buf, Box::new(move |end| send.send(end).unwrap()));
    receive.recv().unwrap()
}

fn fill(opened: &Opened, pea: &TrustedManifest, content: &[u8]) -> u32 {
    let missing: Vec<PieceIdx> = pea.geometry().pieces().filter(|&piece| !opened.held.contains(piece)).collect();
    for &piece in &missing {
        assert!(matches!(commit(&opened.storage, pea, piece, content), CommitEnd::Committed(_)));
    }
    missing.len() as u32
}

fn publish(storage: &Storage) -> Result<(), PublishError> {
    let (send, receive) = channel();
    storage.publish(Box::new(move |end| send.send(end).unwrap()));
    receive.recv().unwrap()
}

fn read(storage: &Storage, span: peas_core::unit::BlockSpan, with_proof: bool) -> ReadEnd {
    let (send, receive) = channel();
    storage.read(span, with_proof, Box::new(move |end| drop(send.send(end))));
    receive.recv().unwrap()
}

fn leftovers(at: &Path) -> Vec<String> {
    let names = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".peas-")).collect()
}

#[test]
fn a_folder_is_made_installed_verified_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("new/place/dest"));
    make_tree(&source, 1);
    let pea = pea_of(&source);
    let content = content_of(&pea, &source);
    let opened = open(&pea, &dest);
    assert!(opened.held.is_empty() && !opened.installed && opened.room_short.is_none());
    assert!(!dest.exists());
    fill(&opened, &pea, &content);
    assert!(!dest.exists(), "a final name before all is whole");
    publish(&opened.storage).unwrap();
    assert_eq!(content_of(&pea, &dest), content);
    assert_eq!(fs::read_link(dest.join("shortcut")).unwrap(), Path::new("data/large"));
    assert!(dest.join("hollow").is_dir());
    assert_eq!(fs::metadata(dest.join("run")).unwrap().permissions().mode() & 0o100, 0o100);
    assert_eq!(fs::metadata(dest.join("data/large")).unwrap().permissions().mode() & 0o111, 0);
    let found = verify(&pea, &dest, GO_ON).unwrap();
    assert_eq!((found.pieces_bad, found.bad_files.len()), (0, 0));
    assert_eq!(leftovers(&dir.path().join("new/place")), Vec::<String>::new());
    assert!(opened.storage.close(Duration::from_secs(10)));
    let again = open(&pea, &dest);
    assert!(again.installed && again.held.is_full());
    assert_eq!(again.bytes_reused, content.len() as u64);
    assert_eq!(leftovers(&dir.path().join("new/place")), Vec::<String>::new());
    publish(&again.storage).unwrap();
}

#[test]
fn a_closed_installation_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::write(&source, noise(5, 1_000_000)).unwrap();
    let pea = pea_of(&source);
    assert!(pea.is_single_file());
    let content = fs::read(&source).unwrap();
    let dest = dir.path().join("dest");
    let first = open(&pea, &dest);
    for piece in pea.geometry().pieces().take(7) {
        assert!(matches!(commit(&first.storage, &pea, piece, &content), CommitEnd::Committed(_)));
    }
    assert!(matches!(Storage::open_install(pea.clone(), &dest, &options(), GO_ON), Err(Error::Busy { .. })));
    assert!(first.storage.close(Duration::from_secs(10)));
    assert!(matches!(commit(&first.storage, &pea, pea.geometry().piece(9).unwrap(), &content), CommitEnd::Unwritten(Error::Closed)));
    let second = open(&pea, &dest);
    assert_eq!(second.held.len(), 7);
    assert_eq!(second.bytes_reused, 7 * 65_536);
    assert_eq!(fill(&second, &pea, &content), 9);
    publish(&second.storage).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
}

#[test]
fn an_older_version_is_used_and_other_peoples_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("dest"));
    make_tree(&source, 1);
    make_tree(&dest, 1);
    let mut large = fs::read(dest.join("data/large")).unwrap();
    large[300_000] ^= 1;
    fs::write(dest.join("data/large"), &large).unwrap();
    fs::rename(dest.join("run"), dest.join("ran")).unwrap();
    fs::write(dest.join("hollow/log"), b"a line").unwrap();
    fs::create_dir(dest.join("saves")).unwrap();
    fs::write(dest.join("saves/game"), b"level 9").unwrap();
    let pea = pea_of(&source);
    let content = content_of(&pea, &source);
    let opened = open(&pea, &dest);
    assert_eq!(opened.held.len(), pea.geometry().piece_count() - 1, "one piece is wrong, the moved file is found");
    assert_eq!(fs::read(dest.join("data/large")).unwrap(), large, "untouched until all is whole");
    fill(&opened, &pea, &content);
    publish(&opened.storage).unwrap();
    assert_eq!(content_of(&pea, &dest), content);
    assert_eq!(fs::read(dest.join("saves/game")).unwrap(), b"level 9");
    assert_eq!(fs::read(dest.join("hollow/log")).unwrap(), b"a line");
    assert_eq!(verify(&pea, &dest, GO_ON).unwrap().pieces_bad, 0);
}

#[test]
fn wrong_bytes_are_corrupt_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::write(&source, noise(6, 200_000)).unwrap();
    let pea = pea_of(&source);
    let mut content = fs::read(&source).unwrap();
    content[70_000] ^= 1;
    let opened = open(&pea, &dir.path().join("dest"));
    let wrong = pea.geometry().piece(1).unwrap();
    assert!(matches!(commit(&opened.storage, &pea, wrong, &content), CommitEnd::Corrupt));
    assert!(matches!(read(&opened.storage, pea.geometry().whole(wrong), false), ReadEnd::Damaged));
    assert!(matches!(publish(&opened.storage), Err(PublishError::Damaged(pieces)) if pieces.len() == 4));
}

#[test]
fn what_is_served_is_proven_and_rot_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 3);
    let pea = pea_of(&source);
    let content = content_of(&pea, &source);
    let geometry = *pea.geometry();
    let opened = Storage::open_seed(pea.clone(), &source, false, &options(), GO_ON).unwrap();
    assert!(opened.held.is_full());
    let span = geometry.span(geometry.piece(2).unwrap(), 1, 2).unwrap();
    let ReadEnd::Bytes { buf, range, proof } = read(&opened.storage, span, true) else { panic!("not read") };
    let start = geometry.bytes_of(span.piece()).start as usize;
    assert_eq!(&buf[range.clone()], &content[start + range.start..start + range.end]);
    let verifier = SpanVerifier::new(&geometry, span, &proof.unwrap(), pea.piece_cv(span.piece())).unwrap();
    for (at, block) in buf[range].chunks(BLOCK_BYTES as usize).enumerate() {
        verifier.block(span.first() + at as u16, block).unwrap();
    }
    let mut large = fs::read(source.join("data/large")).unwrap();
    large[500_000] ^= 8;
    fs::write(source.join("data/large"), &large).unwrap();
    let spoilt: Vec<PieceIdx> =
        geometry.pieces().filter(|&piece| matches!(read(&opened.storage, geometry.whole(piece), false), ReadEnd::Damaged)).collect();
    assert_eq!(spoilt.len(), 1);
    // Somebody wrote that file: it is theirs, and is not "repaired".
    assert!(matches!(commit(&opened.storage, &pea, spoilt[0], &content), CommitEnd::Unwritten(Error::Content { .. })));
    assert_eq!(fs::read(source.join("data/large")).unwrap(), large);
    let checked = Storage::open_seed(pea.clone(), &source, true, &options(), GO_ON).unwrap();
    assert_eq!(checked.held.len(), geometry.piece_count() - 1);
    let found = verify(&pea, &source, GO_ON).unwrap();
    assert_eq!((found.pieces_bad, found.bad_files), (1, vec!["data/large".to_string()]));
    fs::write(source.join("data/large"), b"short").unwrap();
    assert!(matches!(Storage::open_seed(pea.clone(), &source, false, &options(), GO_ON), Err(Error::Content { .. })));
}

/// A wrong piece does not make the files beside it wrong.
#[test]
fn verifying_names_what_is_wrong_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    make_tree(dir.path(), 4);
    let pea = pea_of(dir.path());
    let bad = || verify(&pea, dir.path(), GO_ON).unwrap().bad_files;
    assert!(bad().is_empty());
    // The first piece is of data/deep/small, and of the beginning of this one.
    let mut large = fs::read(dir.path().join("data/large")).unwrap();
    large[100] ^= 8;
    fs::write(dir.path().join("data/large"), large).unwrap();
    assert_eq!(bad(), ["data/large"]);
    fs::write(dir.path().join("data/deep/small"), noise(99, 10)).unwrap();
    fs::remove_dir(dir.path().join("hollow")).unwrap();
    fs::remove_file(dir.path().join("shortcut")).unwrap();
    std::os::unix::fs::symlink("run", dir.path().join("shortcut")).unwrap();
    assert_eq!(bad(), ["data/deep/small", "data/large", "hollow", "shortcut"]);
}

#[test]
fn links_in_a_destination_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest, outside) = (dir.path().join("source"), dir.path().join("dest"), dir.path().join("outside"));
    make_tree(&source, 4);
    let pea = pea_of(&source);
    let content = content_of(&pea, &source);
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("large"), b"canary").unwrap();
    fs::create_dir_all(&dest).unwrap();
    std::os::unix::fs::symlink(&outside, dest.join("data")).unwrap();
    std::os::unix::fs::symlink(outside.join("large"), dest.join("run")).unwrap();
    // A link where the content has a folder cannot be carried over and must not be lost: said before anything is fetched.
    assert!(matches!(Storage::open_install(pea.clone(), &dest, &options(), GO_ON), Err(Error::Content { .. })));
    fs::remove_file(dest.join("data")).unwrap();
    let opened = open(&pea, &dest);
    fill(&opened, &pea, &content);
    // Somebody puts it back meanwhile.
    std::os::unix::fs::symlink(&outside, dest.join("data")).unwrap();
    assert!(matches!(publish(&opened.storage), Err(PublishError::Failed(Error::Content { .. }))));
    fs::remove_file(dest.join("data")).unwrap();
    publish(&opened.storage).unwrap();
    assert_eq!(content_of(&pea, &dest), content);
    assert_eq!(fs::read(outside.join("large")).unwrap(), b"canary");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn links_put_into_the_staging_directory_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest, outside) = (dir.path().join("source"), dir.path().join("dest"), dir.path().join("outside"));
    make_tree(&source, 4);
    let pea = pea_of(&source);
    let content = content_of(&pea, &source);
    fs::create_dir_all(&outside).unwrap();
    let opened = open(&pea, &dest);
    let staging = dir.path().join(&leftovers(dir.path())[0]);
    std::os::unix::fs::symlink(&outside, staging.join("data/data")).unwrap();
    let first = pea.geometry().piece(0).unwrap();
    assert!(matches!(commit(&opened.storage, &pea, first, &content), CommitEnd::Unwritten(_)));
    assert!(opened.storage.close(Duration::from_secs(10)));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let again = open(&pea, &dest);
    fill(&again, &pea, &content);
    publish(&again.storage).unwrap();
    assert_eq!(content_of(&pea, &dest), content);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn things_of_another_kind_in_the_way_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 1);
    let pea = pea_of(&source);
    let dest = dir.path().join("dest");
    fs::write(&dest, b"a file").unwrap();
    assert!(matches!(Storage::open_install(pea, &dest, &options(), GO_ON), Err(Error::Content { .. })));
    assert_eq!(fs::read(&dest).unwrap(), b"a file");
}

#[test]
fn checking_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::write(&source, noise(6, 200_000)).unwrap();
    let pea = pea_of(&source);
    let stop = &|_, _| false;
    assert!(matches!(Storage::open_install(pea.clone(), &source, &options(), stop), Err(Error::Cancelled)));
    assert!(matches!(create(&source, &CreateOptions::default(), stop), Err(Error::Cancelled)));
    assert!(matches!(verify(&pea, &source, stop), Err(Error::Cancelled)));
}

#[test]
fn a_pea_describes_files_by_their_own_hashes() {
    use peas_core::manifest::EntryKind;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 8);
    let pea = pea_of(&source);
    let mut files = 0;
    for entry in pea.entries() {
        if let EntryKind::File { hash, bytes, .. } = &entry.kind {
            let data = fs::read(source.join(&entry.path)).unwrap();
            assert_eq!((blake3::hash(&data).as_bytes(), *bytes), (hash, data.len() as u64), "{}", entry.path);
            files += 1;
        }
    }
    assert_eq!(files, 4);
    assert_eq!(blake3::hash(&content_of(&pea, &source)).as_bytes(), pea.root());
}

#[test]
fn bad_names_are_refused_with_their_path() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["CON", "a:b", "dot."] {
        let source = dir.path().join(format!("source-{}", bad.len()));
        fs::create_dir_all(source.join("fine")).unwrap();
        fs::write(source.join("fine").join(bad), b"x").unwrap();
        let error = create(&source, &CreateOptions::default(), GO_ON).unwrap_err();
        assert!(matches!(&error, Error::Content { path, .. } if path.ends_with(Path::new("fine").join(bad))), "{error}");
        fs::remove_dir_all(&source).unwrap();
    }
}

#[test]
fn pea_files_are_written_whole_and_read_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.peas");
    write_pea(&path, b"first").unwrap();
    write_pea(&path, b"second").unwrap();
    assert_eq!(read_pea(&path).unwrap(), b"second");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    assert!(matches!(read_pea(&path), Err(Error::Content { .. })));
}

/// The bug: the lock was named after the content, so two peas could be installed at one destination at once, the one over the other.
#[test]
fn two_peas_at_one_destination_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other, dest) = (dir.path().join("one"), dir.path().join("other"), dir.path().join("dest"));
    make_tree(&one, 1);
    make_tree(&other, 2);
    let (pea, other_pea) = (pea_of(&one), pea_of(&other));
    let opened = open(&pea, &dest);
    assert!(matches!(Storage::open_install(other_pea.clone(), &dest, &options(), GO_ON), Err(Error::Busy { .. })));
    open(&other_pea, &dir.path().join("elsewhere"));
    fill(&opened, &pea, &content_of(&pea, &one));
    publish(&opened.storage).unwrap();
    let second = open(&other_pea, &dest);
    fill(&second, &other_pea, &content_of(&other_pea, &other));
    publish(&second.storage).unwrap();
    assert_eq!(content_of(&other_pea, &dest), content_of(&other_pea, &other));
}

/// Files of a version before that nobody touched go, on a real disk with real marks; what the user made or changed stays.
#[test]
fn an_update_tells_what_is_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("dest"));
    make_tree(&source, 1);
    for (name, bytes) in [("gone", 4_000), ("data/gone", 10), ("data/settings", 20), ("old/deep/file", 7)] {
        fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        fs::write(source.join(name), noise(bytes, bytes as usize)).unwrap();
    }
    std::os::unix::fs::symlink("gone", source.join("way")).unwrap();
    let pea = pea_of(&source);
    let first = open(&pea, &dest);
    fill(&first, &pea, &content_of(&pea, &source));
    publish(&first.storage).unwrap();
    assert!(first.storage.close(Duration::from_secs(10)));

    fs::write(dest.join("data/settings"), noise(99, 20)).unwrap();
    fs::create_dir_all(dest.join("saves/1")).unwrap();
    fs::write(dest.join("saves/1/game"), b"mine").unwrap();
    for gone in ["gone", "data/gone", "data/settings", "way"] {
        fs::remove_file(source.join(gone)).unwrap();
    }
    fs::remove_dir_all(source.join("old")).unwrap();
    fs::write(source.join("data/deep/small"), b"another version").unwrap();
    let pea = pea_of(&source);
    let second = open(&pea, &dest);
    fill(&second, &pea, &content_of(&pea, &source));
    publish(&second.storage).unwrap();
    assert_eq!(content_of(&pea, &dest), content_of(&pea, &source));
    for gone in ["gone", "data/gone", "way", "old"] {
        assert!(dest.join(gone).symlink_metadata().is_err(), "{gone} went with its version");
    }
    assert_eq!(fs::read(dest.join("data/settings")).unwrap(), noise(99, 20), "changed by the user, in the same size");
    assert_eq!(fs::read(dest.join("saves/1/game")).unwrap(), b"mine");
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}
