//! Peas made, read, judged and damaged.

use super::*;
use crate::hash;
use crate::unit::PeerId;
use crate::wire::MemberRecord;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

const SECRETS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

fn public(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

fn file(path: &str, content: &[u8]) -> (FileEntry, Vec<u8>) {
    let kind = EntryKind::File { offset: 0, bytes: content.len() as u64, executable: false, hash: hash::file_hash(content) };
    (FileEntry { path: path.into(), kind }, content.to_vec())
}

fn other(path: &str, kind: EntryKind) -> (FileEntry, Vec<u8>) {
    (FileEntry { path: path.into(), kind }, Vec::new())
}

fn link(path: &str, target: &str) -> (FileEntry, Vec<u8>) {
    other(path, EntryKind::Symlink { target: target.into() })
}

/// A builder over these entries, in the order given.
fn builder(parts: Vec<(FileEntry, Vec<u8>)>) -> Builder {
    let (mut entries, mut content) = (Vec::new(), Vec::new());
    for (mut entry, bytes) in parts {
        if let EntryKind::File { offset, .. } = &mut entry.kind {
            *offset = content.len() as u64;
        }
        content.extend(bytes);
        entries.push(entry);
    }
    let geometry = Geometry::new(content.len() as u64, 65_536).unwrap();
    let piece_cvs = content.chunks(65_536).zip(geometry.pieces()).map(|(bytes, piece)| hash::piece_cv(&geometry, piece, bytes)).collect();
    Builder {
        name: "example".into(),
        geometry,
        single_file: false,
        entries,
        piece_cvs,
        owners: vec![Owner { addr: "example.org:7000".into(), peer: Some(PeerId(public(&SECRETS[0]))) }],
        web: vec!["https://example.org/content/".into()],
        channel: "stable".into(),
        release: 7,
        created_unix_s: 1_767_225_600,
        expires_unix_s: 1_800_000_000,
    }
}

fn sample() -> Builder {
    let (mut program, bytes) = file("bin/run", &[7; 70_000]);
    if let EntryKind::File { executable, .. } = &mut program.kind {
        *executable = true;
    }
    builder(vec![
        (program, bytes),
        link("bin/start", "run"),
        file("data/a.txt", b"a"),
        file("data/b.txt", &[9; 100_000]),
        link("data/to-run", "../bin/start"),
        other("empty", EntryKind::Directory),
        file("grün/ß.txt", b""),
    ])
}

fn record(port: u16) -> MemberRecord {
    let addr = ([192, 0, 2, 1], port).into();
    MemberRecord { peer: public(&SECRETS[2]), addr, epoch: 4, age_s: 10, ttl_s: 600, held_permille: 1000, region: 0 }
}

fn keys(of: &[usize], threshold: u8) -> Trust {
    Trust::Keys { keys: of.iter().map(|at| public(&SECRETS[*at])).collect(), threshold }
}

#[test]
fn what_goes_in_comes_out() {
    let made = sample();
    let manifest = Manifest::decode(&made.clone().build(&SECRETS[..2]).unwrap()).unwrap();
    assert_eq!(manifest.entries(), made.entries);
    assert_eq!(manifest.geometry(), &made.geometry);
    assert_eq!((manifest.name(), manifest.channel(), manifest.release()), ("example", "stable", 7));
    assert_eq!((manifest.created_unix_s(), manifest.expires_unix_s()), (1_767_225_600, 1_800_000_000));
    assert_eq!((manifest.owners(), manifest.web()), (&made.owners[..], &made.web[..]));
    assert_eq!(manifest.signed_by(&[public(&SECRETS[0]), public(&SECRETS[2])]), [public(&SECRETS[0])]);
    assert_eq!(manifest.signature_key_ids().len(), 2);
    for piece in made.geometry.pieces() {
        assert_eq!(manifest.piece_cv(piece), &made.piece_cvs[piece.at()]);
    }
}

#[test]
fn the_id_is_of_the_content_alone() {
    let id = |builder: Builder| Manifest::decode(&builder.build(&SECRETS[..1]).unwrap()).unwrap().id();
    let same = Builder {
        name: "x".into(),
        owners: vec![],
        web: vec![],
        channel: "".into(),
        release: 8,
        created_unix_s: 0,
        expires_unix_s: 0,
        ..sample()
    };
    assert_eq!(id(same), id(sample()));
    let mut other = sample();
    other.entries[5].path = "emptz".into();
    assert_ne!(id(other), id(sample()));
}

#[test]
fn a_single_file_has_the_root_that_b3sum_prints() {
    let single = |path: &str, content: &[u8]| Builder { single_file: true, ..builder(vec![file(path, content)]) }.build(&[]);
    for content in [&b""[..], b"pea", &[5; 65_536], &[5; 65_537]] {
        let manifest = Manifest::decode(&single("a.bin", content).unwrap()).unwrap();
        assert!(manifest.is_single_file());
        assert_eq!(manifest.root(), blake3::hash(content).as_bytes());
    }
    assert_eq!(single("a/b", b"x"), Err(ManifestError::SingleFile));
}

#[test]
fn trust_is_judged_rule_by_rule() {
    let bytes = sample().build(&SECRETS[..2]).unwrap();
    let manifest = Manifest::decode(&bytes).unwrap();
    let judge = |how: &Trust, context: &TrustContext| {
        let at_once = Manifest::decode_trusted(&bytes, how, context).map(|trusted| trusted.id());
        assert_eq!(manifest.clone().trust(how, context).map(|trusted| trusted.id()), at_once);
        at_once.err().map_or(0, |error| error.code())
    };
    let none = TrustContext::default();
    assert_eq!(judge(&Trust::File, &none), 0);
    assert_eq!(judge(&Trust::Pin(manifest.id()), &none), 0);
    assert_eq!(judge(&Trust::Pin(PeaId([0; 32])), &none), 34);
    assert_eq!(judge(&keys(&[0], 1), &none), 0);
    assert_eq!(judge(&keys(&[0, 1, 2], 2), &none), 0);
    assert_eq!(judge(&keys(&[2], 1), &none), 31);
    assert_eq!(judge(&keys(&[0, 2], 2), &none), 32);
    assert_eq!(judge(&keys(&[0, 0], 2), &none), 33, "one key twice is one key");
    assert_eq!(judge(&keys(&[0], 0), &none), 33);
    assert_eq!(judge(&Trust::Keys { keys: vec![[0; 32]], threshold: 1 }, &none), 33, "a key of small order");
    for (now, code) in [(1_799_999_999, 0), (1_800_000_000, 36)] {
        assert_eq!(judge(&Trust::File, &TrustContext { now_unix_s: Some(now), ..none.clone() }), code);
    }
    assert_eq!(judge(&Trust::File, &TrustContext { channel: Some("beta".into()), ..none.clone() }), 35);
    for (release, id, code) in [(6, PeaId([0; 32]), 0), (7, manifest.id(), 0), (7, PeaId([0; 32]), 38), (8, manifest.id(), 37)] {
        assert_eq!(judge(&Trust::File, &TrustContext { release_at_least: Some((release, id)), ..none.clone() }), code);
    }
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let bytes = sample().build(&[SECRETS[0], SECRETS[0]]).unwrap();
    let judged = Manifest::decode_trusted(&bytes, &keys(&[0, 1], 2), &TrustContext::default());
    assert_eq!(judged.unwrap_err(), ManifestError::TooFewKeys { have: 1, need: 2 });
}

#[test]
fn the_tail_may_change_or_be_missing_but_not_be_damaged() {
    let bytes = sample().build(&SECRETS[..1]).unwrap();
    let manifest = Manifest::decode(&bytes).unwrap();
    let hint = OwnerHint::sign(record(7000), manifest.id(), &SECRETS[2]);
    assert!(hint.verify(manifest.id()) && !hint.verify(PeaId([0; 32])));
    assert!(!OwnerHint { record: record(7001), ..hint.clone() }.verify(manifest.id()));
    let with = manifest.with_owner_hints(std::slice::from_ref(&hint));
    let back = Manifest::decode_trusted(&with, &keys(&[0], 1), &TrustContext::default()).unwrap();
    assert_eq!((back.owner_hints(), back.id()), (&[hint.clone()][..], manifest.id()));
    assert_eq!(back.with_owner_hints(&[]), bytes);
    let without = &bytes[..bytes.len() - 2];
    assert!(Manifest::decode(without).unwrap().owner_hints().is_empty());
    for len in without.len() + 1..with.len() {
        assert_eq!(Manifest::decode(&with[..len]).unwrap_err(), ManifestError::Tail("cut short"), "{len}");
    }
    assert_eq!(Manifest::decode(&[&with[..], &[0]].concat()).unwrap_err(), ManifestError::Tail("bytes after its end"));
    let twice = manifest.with_owner_hints(&[hint.clone(), OwnerHint::sign(record(7001), manifest.id(), &SECRETS[2])]);
    assert_eq!(Manifest::decode(&twice).unwrap_err(), ManifestError::Tail("a peer twice"));
}

#[test]
fn no_part_of_a_pea_is_a_pea() {
    let bytes = sample().build(&SECRETS[..1]).unwrap();
    for len in 0..bytes.len() - 2 {
        match Manifest::decode(&bytes[..len]).unwrap_err() {
            ManifestError::NotAPea if len == 0 => {}
            ManifestError::CutShort { have, need } => assert!(have == len as u64 && need > have && need <= bytes.len() as u64),
            other => panic!("{len} bytes: {other}"),
        }
    }
}

/// With keys a flipped bit is refused, or it lies where nothing is signed and changes no content.
#[test]
fn no_flipped_bit_of_a_signed_pea_gets_through() {
    let bytes = sample().build(&SECRETS[..1]).unwrap();
    let id = Manifest::decode(&bytes).unwrap().id();
    let body_at = 15 + 73;
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        match Manifest::decode_trusted(&bad, &keys(&[0], 1), &TrustContext::default()) {
            Ok(trusted) => panic!("byte {at} of {} flipped, and the pea is taken as {}", bytes.len(), trusted.id()),
            Err(error) if (body_at..bytes.len() - 2).contains(&at) => assert_eq!(error, ManifestError::NotSigned, "byte {at}"),
            Err(_) => {}
        }
        if let Ok(unsigned) = Manifest::decode(&bad) {
            let in_content = unsigned.id() != id;
            assert!(!in_content || at >= body_at, "byte {at} outside of the body changes the content");
        }
    }
}

/// Paths are stored by what they share with the one before, in bytes; these part in the middle of a character.
#[test]
fn paths_part_in_the_middle_of_a_character() {
    let paths = ["a/ü", "a/ý", "a/\u{20ac}", "a/\u{20ad}x", "a/\u{1f340}", "a/\u{1f341}", "a/\u{1f341}\u{1f340}"];
    let made = builder(paths.iter().map(|path| file(path, b"x")).collect());
    let manifest = Manifest::decode(&made.clone().build(&[]).unwrap()).unwrap();
    assert_eq!(manifest.entries(), made.entries);
}

#[test]
fn trees_that_may_not_be() {
    let code = |parts: Vec<(FileEntry, Vec<u8>)>| builder(parts).build(&[]).err().map_or(0, |error| error.code());
    assert_eq!(code(vec![file("a", b""), file("a", b"")]), 17);
    assert_eq!(code(vec![file("b", b""), file("a", b"")]), 17);
    assert_eq!(code(vec![file("A", b""), file("a", b"")]), 18, "case");
    assert_eq!(code(vec![file("DIR/x", b""), file("dir/y", b"")]), 18, "case of a folder");
    assert_eq!(code(vec![file("Dir", b""), file("dir/y", b"")]), 18, "case of a file and a folder");
    assert_eq!(code(vec![file("fi", b""), file("ﬁ", b"")]), 18, "a ligature");
    assert_eq!(code(vec![file("K", b""), file("\u{212A}", b"")]), 16, "Kelvin is not composed");
    assert_eq!(code(vec![file("É", b""), file("é", b"")]), 18);
    assert_eq!(code(vec![file("a", b""), file("a.b", b""), file("a/c", b"")]), 19, "a file as a folder");
    assert_eq!(code(vec![other("a", EntryKind::Directory), file("a/c", b"")]), 19, "an empty folder that is not");
    assert_eq!(code(vec![link("a", "b"), file("a/c", b"")]), 19, "below a link");
    for (path, target) in [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("l", "../x"),
        ("d/l", "../../x"),
        ("d/l", "x/../../.."),
        ("d/l", "x/.."),
        ("l", ""),
        ("l", "."),
        ("l", "a//b"),
        ("l", "a/"),
        ("l", "l"),
        ("d/l", "../d/l"),
        ("l", "L"),
        ("l", "con"),
        ("l", "a\\b"),
        ("l", "k/x"),
        ("l", "K/x"),
        ("d/l", ".."),
        ("l", &["x/"; 513].concat()[..1025]),
    ] {
        let mut parts = vec![link("k", "somewhere"), link(path, target)];
        parts.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        assert_eq!(code(parts), 20, "{path} -> {target}");
    }
    assert_eq!(code(vec![link("d/l", "../x"), link("e/l", "m"), link("e/m", "deep/er")]), 0, "links that stay inside");
}

#[test]
fn paths_that_may_not_be() {
    use PathProblem::*;
    let (long, deep) = ("a".repeat(256), ["d"; 65].join("/"));
    let far = vec!["a".repeat(250); 5].join("/");
    for (path, problem) in [
        ("", Empty),
        (&far, TooLong),
        (&deep, TooDeep),
        (&long, NameTooLong),
        ("/a", EmptyName),
        ("a/", EmptyName),
        ("a//b", EmptyName),
        (".", Dots),
        ("a/../b", Dots),
        ("a\nb", Control),
        ("a\u{7f}", Control),
        ("a\u{85}", Control),
        ("a\0", Control),
        ("a\u{202E}txt.exe", Invisible),
        ("\u{FEFF}a", Invisible),
        ("a\\b", Forbidden('\\')),
        ("c:", Forbidden(':')),
        ("a?", Forbidden('?')),
        (" a", Edge),
        ("a ", Edge),
        ("a.", Edge),
        ("...", Edge),
        ("a./b", Edge),
        ("nul", Device),
        ("x/Con.txt", Device),
        ("com1", Device),
        ("LPT³.log", Device),
        ("aux .x", Device),
        ("conout$", Device),
        ("e\u{301}", NotComposed),
        (".peas-x/y", Ours),
        (".Peas-", Ours),
    ] {
        let refused = check_path(path).unwrap_err();
        assert!(matches!(refused, ManifestError::Path { problem: found, .. } if found == problem), "{path:?}: {refused}");
    }
    let good = ["a", "a/b.c", "...a", "com", "com10", "console", "COMA", "aux1", "grün", "a b", "x/.peas-y", "-", "~", &"a".repeat(255)];
    good.iter().for_each(|path| assert_eq!(check_path(path), Ok(()), "{path:?}"));
}

#[test]
fn extensions_are_kept_or_refuse() {
    let extension = |kind, critical| Extension { kind, critical, bytes: vec![1, 2] };
    let with = |extensions: Vec<Extension>| Manifest::decode(&sample().build_with(extensions, &[])?).map(|it| it.extensions().to_vec());
    assert_eq!(with(vec![extension(5, false), extension(900, false)]).unwrap().len(), 2);
    assert_eq!(with(vec![extension(5, true)]).unwrap_err(), ManifestError::UnknownCritical(5));
    assert_eq!(with(vec![extension(4, false)]).unwrap_err(), ManifestError::SectionOrder(4));
    assert_eq!(with(vec![extension(6, false), extension(6, false)]).unwrap_err(), ManifestError::SectionOrder(6));
    let many = |count: u16| with((0..count).map(|at| extension(5 + at, false)).collect());
    assert_eq!(many(60).unwrap().len(), 60);
    assert_eq!(many(61).unwrap_err(), ManifestError::TooMany { what: "extensions", count: 61, limit: 60 });
    let long = |bytes: usize| with(vec![Extension { kind: 5, critical: false, bytes: vec![0; bytes] }]);
    assert_eq!(long(1 << 20).unwrap().len(), 1);
    let refused = ManifestError::TooMany { what: "bytes of an extension", count: (1 << 20) + 1, limit: 1 << 20 };
    assert_eq!(long((1 << 20) + 1).unwrap_err(), refused);
}

#[test]
fn what_does_not_fit_together_is_not_made() {
    let code = |change: fn(&mut Builder)| {
        let mut made = sample();
        change(&mut made);
        made.build(&[]).unwrap_err().code()
    };
    assert_eq!(code(|made| made.piece_cvs.push([0; 32])), 23);
    assert_eq!(code(|made| drop(made.entries.remove(2))), 22);
    assert_eq!(code(|made| made.entries.truncate(3)), 21);
    assert_eq!(code(|made| made.single_file = true), 26);
    assert_eq!(code(|made| made.name = "a/b".into()), 27);
    assert_eq!(code(|made| made.channel = "c".repeat(65)), 27);
    assert_eq!(code(|made| made.web = vec!["ftp://example.org".into()]), 27);
    for addr in ["", "example.org", "example.org:0", ":1", "::1:5", "a b:1", "example.org:65536", "example.org:+1"] {
        let made = Builder { owners: vec![Owner { addr: addr.into(), peer: None }], ..sample() };
        assert_eq!(made.build(&[]).unwrap_err().code(), 27, "{addr}");
    }
    assert_eq!(Builder { web: vec!["http://example.org".into(); 65], ..sample() }.build(&[]).unwrap_err().code(), 28);
    assert_eq!(sample().build(&[[1; 32]; 17]), Err(ManifestError::TooManySignatures(17)));
    // Judged before the names are: a million of them take a while.
    assert_eq!(code(|made| made.entries = vec![made.entries[0].clone(); 1_000_001]), 13);
    let long = FileEntry { path: "d".repeat(1 << 20), kind: EntryKind::Directory };
    let refused = Builder { entries: vec![long; 129], ..sample() }.build(&[]).unwrap_err();
    assert_eq!(refused, ManifestError::TooMany { what: "bytes of paths", count: 129 << 20, limit: 128 << 20 });
}

/// What a folder of 170,000 files costs. Sizes are judged; the time is printed for the record.
#[test]
fn a_pea_of_170_000_files_stays_under_8_mib() {
    let mut parts: Vec<_> = (0..170_000u32)
        .map(|at| {
            file(&format!("lib/package-{:04}/module{:02}/source_{}.py", at / 60, at / 7 % 13, at.wrapping_mul(2_654_435_761) >> 12), &[])
        })
        .collect();
    parts.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    parts.dedup_by(|a, b| a.0.path == b.0.path);
    let mut made = builder(parts);
    // Sizes and hashes as real files have them; what is described is not read here.
    let (mut rng, mut at) = (crate::unit::Rng::new(1), 0);
    for entry in &mut made.entries {
        if let EntryKind::File { offset, bytes, hash, .. } = &mut entry.kind {
            (*offset, *bytes) = (at, rng.below(12_000) as u64 + 30);
            at += *bytes;
            *hash = std::array::from_fn(|_| rng.below(256) as u8);
        }
    }
    made.geometry = Geometry::new(at, Geometry::piece_bytes_for(at)).unwrap();
    made.piece_cvs = made.geometry.pieces().map(|piece| [piece.raw() as u8; 32]).collect();
    let (count, start) = (made.entries.len(), std::time::Instant::now());
    let bytes = made.build(&SECRETS[..1]).unwrap();
    let built = start.elapsed();
    let manifest = Manifest::decode(&bytes).unwrap();
    println!("{count} files: {} bytes, made in {built:?}, read in {:?}", bytes.len(), start.elapsed() - built);
    assert_eq!(manifest.entries().len(), count);
    assert!(bytes.len() < 8 << 20, "{} bytes", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_tree_that_is_made_can_be_read(
        names in proptest::collection::btree_map("[a-z]{1,3}(/[0-9a-zäß]{1,6}){0,3}", (0usize..3000, any::<bool>()), 0..40),
        signer_count in 0usize..3,
    ) {
        let parts = names.into_iter().map(|(path, (bytes, executable))| {
            let (mut entry, content) = file(&path, &vec![bytes as u8; bytes]);
            if let EntryKind::File { executable: bit, .. } = &mut entry.kind {
                *bit = executable;
            }
            (entry, content)
        });
        let made = builder(parts.collect());
        match made.clone().build(&SECRETS[..signer_count]) {
            Ok(bytes) => {
                let back = Manifest::decode(&bytes).unwrap();
                prop_assert_eq!(back.entries(), &made.entries[..]);
                prop_assert_eq!(back.with_owner_hints(&[]), bytes);
            }
            // One run in ten draws the name of a device ("aux", "nul").
            Err(error) => {
                let device = matches!(error, ManifestError::Path { problem: PathProblem::Device, .. });
                prop_assert!(device || matches!(error, ManifestError::Below { .. } | ManifestError::Collision { .. }), "{error}");
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..700, cut in 0usize..700) {
        let mut pea = sample().build(&SECRETS[..1]).unwrap();
        let at = at.min(pea.len());
        let end = (at + cut).min(pea.len());
        pea.splice(at..end, bytes);
        let _ = Manifest::decode(&pea);
        let _ = OwnerHint::sign(record(1), PeaId([0; 32]), &SECRETS[2]);
    }
}

/// The longest paths, of which no two share more than their number: within the bounds of each path and of all together, and above that of the list
/// that they make.
#[test]
fn a_list_of_paths_above_64_mib_is_not_made() {
    let rest = ["a".repeat(249), "b".repeat(255), "c".repeat(255), "d".repeat(255)].join("/");
    let tree = |count: usize| {
        let dir = |number: usize| other(&format!("{number:05}{}", &rest), EntryKind::Directory);
        builder((0..count).map(dir).chain([file("z", b"content")]).collect()).build(&[])
    };
    match tree(66_000) {
        Err(ManifestError::TreeTooLarge { bytes, limit }) => assert!(bytes > limit && limit == 64 << 20, "{bytes}, {limit}"),
        other => panic!("{:?}", other.map(|pea| pea.len())),
    }
    assert!(tree(100).is_ok(), "the control: such paths may be");
}
