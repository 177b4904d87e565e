//! The style, held by a test: ranks of the rooms, what each may know, a description on every file, the map.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A room imports only from rooms of a lower rank.
const RANKS: &[&[&str]] = &[
    &[
        "batch", "budget", "door", "dropped", "frame", "inbox", "medium", "number", "places", "shutdown",
        "steady", "text", "token", "units",
    ],
    &[
        "answers", "client", "config", "findings", "metrics", "order", "sampler", "scan", "sessions",
        "taking", "tally", "users", "values",
    ],
    &[
        "allowance",
        "exposition",
        "ownlog",
        "patience",
        "queue",
        "record",
        "session_error",
        "settings",
        "status",
        "storage",
        "systemd",
    ],
    &[
        "chore",
        "context",
        "disk",
        "item",
        "load",
        "lots",
        "marker",
        "purse",
        "quarantine",
        "rebase",
        "session",
        "window",
    ],
    &["background"],
    &["lane"],
    &["archive", "chain", "hands", "protocol", "rewrite", "spares"],
    &["journal", "packing", "seal"],
    &["keeping", "parting", "redo", "replies", "shelf", "vault"],
    &["apply", "checkpoint", "chores", "express", "front", "means"],
    &["commit", "connection", "inventory", "lines", "recovery", "rotation", "writer"],
    &["scrape", "server", "verify"],
    &["check"],
];

const FRONT: &[&str] = &[
    "allowance",
    "answers",
    "connection",
    "context",
    "door",
    "dropped",
    "exposition",
    "express",
    "front",
    "inbox",
    "item",
    "parting",
    "patience",
    "protocol",
    "purse",
    "replies",
    "scan",
    "scrape",
    "server",
    "status",
    "users",
];
const VAULT: &[&str] = &[
    "apply",
    "archive",
    "background",
    "chain",
    "checkpoint",
    "chore",
    "chores",
    "commit",
    "disk",
    "frame",
    "hands",
    "journal",
    "keeping",
    "lane",
    "lots",
    "marker",
    "means",
    "medium",
    "packing",
    "quarantine",
    "rebase",
    "recovery",
    "redo",
    "rewrite",
    "rotation",
    "seal",
    "sessions",
    "spares",
    "steady",
    "storage",
    "vault",
    "window",
    "writer",
];
/// Most lines of a file; a purpose-made scanner lives in one file.
const MOST_LINES: usize = 450;
const LONGER: &[(&str, usize)] = &[("scan", 600), ("session", 500)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The rooms, with their code up to their tests, without comments.
fn rooms() -> BTreeMap<String, String> {
    let files = rust_files("src").into_iter().filter(|p| p.parent() == Some(&root().join("src")));
    let rooms = files.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        let code: Vec<&str> =
            text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (name, code.join("\n"))
    });
    rooms.filter(|(name, _)| name != "lib").collect()
}

/// The rooms that a room names.
fn imports(code: &str) -> Vec<String> {
    let mut found: Vec<String> = code
        .split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn rank(room: &str) -> usize {
    RANKS
        .iter()
        .position(|rank| rank.contains(&room))
        .unwrap_or_else(|| panic!("{room} has no rank: give it one"))
}

#[test]
fn every_room_imports_only_from_lower_ranks() {
    for (room, text) in rooms() {
        for import in imports(&text) {
            let lower = rank(&import) < rank(&room);
            assert!(lower, "{room} (rank {}) imports {import} (rank {})", rank(&room), rank(&import));
        }
    }
}

#[test]
fn front_and_vault_never_name_each_other() {
    for (room, text) in rooms() {
        for import in imports(&text) {
            let crosses = (FRONT.contains(&room.as_str()) && VAULT.contains(&import.as_str()))
                || (VAULT.contains(&room.as_str()) && FRONT.contains(&import.as_str()));
            assert!(!crosses, "{room} names {import}");
        }
    }
}

#[test]
fn the_vault_knows_no_sockets_no_runtime_and_opens_files_only_through_storage() {
    for (room, text) in rooms() {
        if VAULT.contains(&room.as_str()) {
            for word in ["tokio::net", "UnixStream", "tokio::fs", "tokio::spawn", "SystemTime::now"] {
                assert!(!text.contains(word), "{room} knows {word}");
            }
            assert!(room == "disk" || !text.contains("std::fs"), "{room} knows std::fs");
        }
        if FRONT.contains(&room.as_str()) && room != "door" {
            assert!(!text.contains("std::fs"), "{room} knows files");
        }
        for word in ["unwrap()", "todo!", "unimplemented!", "dbg!", "println!"] {
            assert!(!text.contains(word), "{room}: {word}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_none_is_too_long() {
    let all = ["src", "tests"].into_iter().flat_map(rust_files);
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        let most = LONGER.iter().find(|(room, _)| *room == name).map_or(MOST_LINES, |(_, most)| *most);
        let in_src = path.starts_with(root().join("src"));
        let lines = text.lines().count();
        assert!(!in_src || lines <= most, "{} has {lines} lines: two jobs in one?", path.display());
    }
}

#[test]
fn every_room_is_in_the_map() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for room in rooms().keys() {
        assert!(map.contains(&format!("[`{room}`]")), "{room} is not in the map of lib.rs");
        assert!(map.contains(&format!("pub mod {room};")), "{room} is not in lib.rs");
    }
}

#[test]
fn the_readme_agrees_with_the_settings_and_the_rooms() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for setting in lotlog::settings::SETTINGS {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.key)));
        let row = row.unwrap_or_else(|| panic!("{} is not in the README's table", setting.key));
        let printed = setting.toml(&lotlog::config::Config::default()).unwrap();
        let default = printed.trim_matches('"');
        let told = ["", "[]"].contains(&default) || row.contains(&format!("`{default}`"));
        assert!(told, "the README gives another default than {default}: {row}");
    }
    for word in readme.split('`').filter(|word| word.ends_with(".rs") && !word.contains(['/', ' '])) {
        assert!(root().join("src").join(word).is_file(), "the README names {word}, which is not there");
    }
    for kind in lotlog::findings::KINDS {
        let row =
            readme.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{}`", kind.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in the README", kind.name));
        assert!(row.contains(if kind.is_damage { "| damage |" } else { "| note |" }), "{row}");
    }
    let bound = lotlog::config::Config::default().most_memory_bytes();
    assert!(readme.contains(&format!("{} GiB with the defaults", bound >> 30)), "{bound}");
    for code in ["0", "64", "65", "73", "74", "75", "78"] {
        assert!(readme.contains(&format!("| {code} |")), "exit code {code} is not in the README");
    }
}

#[test]
fn every_proof_that_is_listed_is_a_test() {
    let tests: String =
        rust_files("tests").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let proof = std::fs::read_to_string(root().join("docs/proof.md")).unwrap();
    let mut listed = 0;
    for row in proof.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() >= 2) {
        let Some(name) = row.split(" | ").nth(2).and_then(|cell| cell.split('`').nth(1)) else { continue };
        assert!(tests.contains(&format!("fn {name}(")), "docs/proof.md lists {name}, which is no test");
        listed += 1;
    }
    assert!(listed > 100, "only {listed} rows name a test");
}

/// The file that the package installs: every setting, explained, at its default, as under systemd.
fn example_configuration() -> String {
    let config = lotlog::config::Config {
        data_dir: "/var/lib/lotlog".into(),
        socket: "/run/lotlog/lotlog.sock".into(),
        ..Default::default()
    };
    let printed = lotlog::settings::print(&config).unwrap();
    let mut example = "\
# /etc/lotlog/lotlogd.toml: settings of the lotlogd service, all at their defaults. Take the # from a line to change it,
# see whether the daemon takes it:
#
#     sudo -u lotlog lotlogd --config /etc/lotlog/lotlogd.toml --print-config
#
# and `systemctl restart lotlogd`: producers wait, and nothing is lost. (log_level takes no more than `systemctl reload`.)
# What the service has in its environment (`systemctl edit lotlogd`, Environment=LOTLOGD_...) comes before this file.
# Under another data_dir than this the service may only write where a drop-in says ReadWritePaths=.
"
    .to_owned();
    for line in printed.lines().skip(1) {
        let is_setting = line.starts_with(|c: char| c.is_ascii_lowercase());
        example += if is_setting { "#" } else { "" };
        example += line;
        example.push('\n');
    }
    example
}

#[test]
fn the_example_configuration_has_every_setting_with_its_default() {
    let path = root().join("systemd/lotlogd.toml");
    let wanted = example_configuration();
    if std::env::var_os("LOTLOG_ANEW").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "systemd/lotlogd.toml is not what the settings are: `LOTLOG_ANEW=1 cargo test --test tidy example` writes it anew"
    );
}

#[test]
fn the_package_is_of_this_version() {
    let changelog = std::fs::read_to_string(root().join("systemd/debian/changelog")).unwrap();
    let wanted = concat!("lotlog (", env!("CARGO_PKG_VERSION"), "-");
    assert!(
        changelog.starts_with(wanted),
        "systemd/debian/changelog needs an entry that begins with {wanted}"
    );
}

#[test]
fn the_links_of_the_packaged_pages_lead_to_what_is_packaged() {
    const DOC: &str = "usr/share/doc/lotlog/";
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    // What lies in the package, and what it is made of: a file of the repository, or where a link leads.
    let mut there: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for asset in assets {
        let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
        if let Some(link) = asset.as_table() {
            let dest = PathBuf::from(text(&link["dest"]));
            there.insert(dest.clone(), settled(&dest, &text(&link["link_name"])));
            continue;
        }
        let (from, to) = (text(&asset[0]), text(&asset[1]));
        let files = match from.split_once("/*.") {
            Some((dir, kind)) => {
                let all = std::fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
                all.filter(|path| path.extension().is_some_and(|e| e == kind)).collect()
            }
            None => vec![root().join(&from)],
        };
        for file in files {
            let dest = match to.strip_suffix('/') {
                Some(dir) => Path::new(dir).join(file.file_name().unwrap()),
                None => to.clone().into(),
            };
            there.insert(dest, file);
        }
    }
    let mut links = 0;
    for (page, file) in
        there.iter().filter(|(page, _)| page.starts_with(DOC) && page.extension().is_some_and(|e| e == "md"))
    {
        // What is compressed on its way has no links.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            links += 1;
            let target = settled(page, path);
            // The first part of it may be a link to a directory.
            let through =
                target.ancestors().find_map(|dir| Some(there.get(dir)?.join(target.strip_prefix(dir).ok()?)));
            let found = there.contains_key(&target) || through.is_some_and(|path| there.contains_key(&path));
            assert!(found, "{} leads to {path}, which the package does not have", page.display());
        }
    }
    assert!(links > 15, "only {links} links");
}

/// Where a relative link leads.
fn settled(from: &Path, link: &str) -> PathBuf {
    let mut path = from.parent().unwrap().to_owned();
    for part in Path::new(link) {
        if part == ".." { assert!(path.pop()) } else { path.push(part) }
    }
    path
}
