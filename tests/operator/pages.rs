//! The pages: what they link to and what they tell people to run is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{output_of, root, store_binary};

fn pages() -> Vec<PathBuf> {
    let listed = output_of(Command::new("find").arg(root()).args([
        "-name",
        "*.md",
        "-not",
        "-path",
        "*/target/*",
        "-not",
        "-path",
        "*/.tools/*",
        "-not",
        "-path",
        "*/node_modules/*",
        "-not",
        "-path",
        "*/.run/*",
    ]));
    listed.lines().map(PathBuf::from).collect()
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap()
}

/// The text without blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchors that a page has, as forges make them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.split("```").step_by(2).flat_map(str::lines).filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' ')).flatten()
    });
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>();
        kept.trim().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() >= 10);
    for page in &pages {
        let text = prose(&read(page));
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&read(&target)).contains(anchor), "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn every_command_and_option_of_dcr_store_that_the_pages_name_is_there() {
    let help = |arguments: &[&str]| output_of(Command::new(store_binary()).args(arguments).arg("--help"));
    let known = help(&[]);
    let mut seen = BTreeSet::new();
    for page in pages() {
        let text = read(&page).replace("\\\n", " ");
        for line in text.lines() {
            for call in line.split("dcr-store ").skip(1) {
                let words: Vec<&str> = call.split([' ', '`', ')', '|', ';']).map(str::trim).collect();
                let Some(command) = words.iter().find(|word| !word.is_empty()) else { continue };
                let is_command = known.lines().any(|line| line.trim_start().starts_with(&format!("{command} ")));
                if !is_command || *command == "help" || command.starts_with("--") || call.starts_with(' ') {
                    continue;
                }
                let sub = words.get(1).copied().filter(|_| ["tenant", "key"].contains(command));
                let sub = sub.filter(|sub| ["create", "update", "list", "show", "delete", "rotate"].contains(sub));
                let help = help(&std::iter::once(*command).chain(sub).collect::<Vec<_>>());
                let until_the_end = call.split(['`', '#', '|', ')']).next().unwrap();
                for option in until_the_end.split([' ', '[', ']']).filter(|word| word.starts_with("--")) {
                    let name = option.split(['=', '.', ',', ':']).next().unwrap();
                    assert!(help.contains(name), "{}: dcr-store {until_the_end}: no {name}", page.display());
                    seen.insert(format!("{command} {name}"));
                }
            }
        }
    }
    assert!(seen.len() >= 15, "{seen:?}");
}

#[test]
fn every_target_of_make_that_the_pages_name_is_there() {
    let makefile = read(&root().join("Makefile"));
    for page in pages() {
        for part in read(&page).split("`make ").skip(1) {
            let target = part.split(['`', ' ']).next().unwrap();
            assert!(
                makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
                "{}: {target}",
                page.display()
            );
        }
    }
}
