//! Rules for the source that no lint checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_file_opens_with_a_sentence() {
    for (path, text) in texts(&["src", "sim", "tests", "examples", "bench"]) {
        if is_markdown(&path) {
            continue;
        }
        let is_front_page = text.contains("#![doc = include_str!(\"../README.md\")]");
        assert!(is_front_page || text.starts_with("//! "), "{}", path.display());
    }
}

#[test]
fn the_operating_system_is_chosen_in_one_place() {
    for (path, text) in texts(&["src", "sim/src"]) {
        let may = path.ends_with("src/selector.rs") || is_wall(&path);
        assert!(may || !text.contains("target_os ="), "{}", path.display());
    }
}

#[test]
fn unsafe_code_is_behind_the_wall() {
    // The lint `unsafe_code` is denied, so it is enough to find its exceptions.
    let exceptions = [
        "bench/src/peer/bare.rs",
        "bench/src/peer/libev.rs",
        "bench/src/peer/libevent.rs",
        "bench/src/peer/libuv.rs",
        "bench/src/peer/polling.rs",
        "bench/src/sockets.rs",
        "bench/src/workload/memory.rs",
        "src/sys.rs",
        "tests/it/conformance/waiting.rs",
        "tests/it/linux/kqueue_model/kevent.rs",
        "tests/it/linux/kqueue_model/sys.rs",
        "tests/it/linux/suites/faults.rs",
        "tests/it/linux/suites/system_calls.rs",
        "tests/it/suites/tidy.rs",
    ];
    for (path, text) in texts(&["src", "sim", "tests", "examples", "bench"]) {
        let excepted = exceptions.iter().any(|exception| path.ends_with(exception));
        assert_eq!(text.contains("(unsafe_code"), excepted, "{}", path.display());
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let not_in_a_path = |c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c));
    for (path, text) in texts(&["."]) {
        if path.ends_with("COMPARE.md") {
            continue; // it names the files of other projects
        }
        for line in text.lines().filter(|line| is_prose(&path, line)) {
            for word in line.split(not_in_a_path).map(|word| word.trim_end_matches('.')) {
                let is_link = word.contains("docs.rs/");
                let is_path = !is_link
                    && [".rs", ".md", ".toml", ".yml"].iter().any(|end| word.ends_with(end))
                    || ["src/", "tests/", "examples/", ".ci/"]
                        .iter()
                        .any(|top| word.starts_with(top));
                assert!(!is_path || root().join(word).exists(), "{}: {word}", path.display());
            }
        }
    }
}

/// Each line of the map names files and folders below those of the line that it is indented under.
#[test]
fn the_map_of_the_architecture_names_what_there_is() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("## The map\n\n```text\n").expect("the map");
    let mut above: Vec<(usize, PathBuf)> = Vec::new();
    for line in map.lines().take_while(|line| *line != "```") {
        let names = line.trim_start();
        let depth = line.len() - names.len();
        above.retain(|(other, _)| *other < depth);
        let below = above.last().map_or(root(), |(_, path)| path).to_path_buf();
        for name in names.split("  ").next().unwrap().split(' ') {
            let path = below.join(name);
            let exists =
                path.exists() || ["rs", "md"].iter().any(|end| path.with_extension(end).exists());
            assert!(exists, "{name} in: {line}");
            above.push((depth, path));
        }
    }
    assert!(above.iter().any(|(_, path)| path.ends_with(".ci")), "the map ends before its end");
}

#[test]
fn the_changelog_has_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    let heading = format!("## {}", version.trim_matches('"'));
    assert!(changelog.lines().any(|line| line.starts_with(&heading)), "no {heading}");
}

#[test]
fn every_clause_of_the_contract_has_a_case() {
    let contract = fs::read_to_string(root().join("src/poller.rs")).unwrap();
    let clauses = contract.lines().filter_map(|line| line.strip_prefix("/// - **"));
    let clauses: BTreeSet<_> = clauses.filter_map(|line| line.split("**").next()).collect();
    assert!(clauses.contains("C1"), "the contract is not where it was");

    let tests = texts(&["tests"]);
    let comments = tests.iter().flat_map(|(_, text)| text.lines());
    let comments = comments.filter_map(|line| line.strip_prefix("/// C"));
    let cases: BTreeSet<_> = comments
        .flat_map(|line| line.split(':').next().unwrap().split(", "))
        .map(|clause| format!("C{}", clause.trim_start_matches('C')))
        .collect();
    for clause in clauses {
        assert!(cases.contains(clause), "{clause} has no case");
    }
}

#[test]
fn every_case_of_the_peers_has_one_of_ours_or_a_reason() {
    let peers = fs::read_to_string(root().join("tests/PEERS.md")).unwrap();
    let rows: Vec<_> = peers.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 2, "the table is not where it was");

    let tests = texts(&["tests"]);
    let exists = |module: &str, test: &str| {
        let (generic, plain) = (format!("fn {test}<"), format!("fn {test}("));
        tests.iter().any(|(path, text)| {
            path.file_stem().unwrap() == module
                && (text.contains(&generic) || text.contains(&plain))
        })
    };
    for row in &rows[1..] {
        let ours = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<_> =
            ours.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).collect();
        assert!(!named.is_empty() || ours.starts_with("Does not apply: "), "{row}");
        for (module, test) in named {
            assert!(exists(module, test), "there is no {module}::{test}");
        }
    }
}

/// A link in Markdown leads to an existing file or to a name of the crate.
#[test]
fn every_link_leads_somewhere() {
    const SOURCE: &str = "https://docs.rs/crate/pollio/latest/source/";
    const DOCS: &str = "https://docs.rs/pollio/latest/pollio/";
    const SIM_DOCS: &str = "https://docs.rs/pollio-sim/latest/pollio_sim/";
    let libraries = ["src/lib.rs", "sim/src/lib.rs"];
    let [library, sim] = libraries.map(|path| fs::read_to_string(root().join(path)).unwrap());
    let names = |library: &str| -> BTreeSet<String> {
        let names = library.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.map(str::to_owned).collect()
    };
    let (names, sim_names) = (names(&library), names(&sim));
    for (path, text) in texts(&["."]) {
        if !is_markdown(&path) {
            continue;
        }
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        for link in links {
            let (link, _anchor) = link.split_once('#').unwrap_or((link, ""));
            let leads = if let Some(file) = link.strip_prefix(SOURCE) {
                root().join(file).exists()
            } else if let Some(page) = link.strip_prefix(DOCS) {
                // guide/index.html, struct.Waker.html
                page.split(['/', '.']).any(|name| names.contains(name))
            } else if let Some(page) = link.strip_prefix(SIM_DOCS) {
                page.split(['/', '.']).any(|name| sim_names.contains(name))
            } else {
                let is_elsewhere = link.is_empty() || link.contains("://") || link.contains("::");
                is_elsewhere || path.parent().unwrap().join(link).exists()
            };
            assert!(leads, "{}: {link}", path.display());
        }
    }
}

/// A label of a front page has one target in the repository and one in the docs, where the first definition counts.
#[test]
fn every_link_of_a_front_page_stays_in_the_docs_or_the_repository() {
    let definitions = |path: &str, start: &str| -> BTreeMap<String, String> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(start)?.split_once("]: "));
        let lines = lines.filter(|(label, _)| !label.contains(']'));
        lines.map(|(label, target)| (label.to_string(), target.to_string())).collect()
    };
    for (readme, library) in [("README.md", "src/lib.rs"), ("sim/README.md", "sim/src/lib.rs")] {
        let in_docs = definitions(library, "//! [");
        let in_repository = definitions(readme, "[");
        assert!(in_repository.len() > 10, "the definitions of {readme} are not found");
        for (label, target) in in_repository {
            if target == "https://docs.rs/pollio-sim" {
                continue;
            }
            let in_docs = in_docs.get(&label).unwrap_or_else(|| panic!("[{label}] in {library}"));
            if target.starts_with("https://docs.rs/pollio") {
                let is_path = ["crate::", "pollio::"].iter().any(|root| in_docs.starts_with(root));
                assert!(is_path, "[{label}]: {in_docs}");
            } else {
                assert!(root().join(&target).exists(), "[{label}]: {target}");
                let source = format!("https://docs.rs/crate/pollio/latest/source/{target}");
                assert_eq!(*in_docs, source);
            }
        }
    }
}

#[test]
fn the_tested_systems_are_named_in_the_same_words() {
    let sentence = |path: &str| -> String {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let start = text.find("epoll is tested on Linux; ").expect(path);
        text[start..].split(". ").next().unwrap().to_string()
    };
    let front_page = sentence("README.md");
    assert_eq!(sentence("COMPARE.md"), front_page);
    assert_eq!(sentence("src/kernels.md"), front_page);
}

/// Rustdoc checks that the page of a link exists, but not its section.
#[test]
fn every_link_to_a_section_has_its_heading() {
    let texts = texts(&["."]);
    let prose = |line: &str| line.trim_start().trim_start_matches(['/', '!']).trim().to_string();
    let anchor = |heading: &str| -> String {
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        heading.to_lowercase().chars().filter(kept).collect::<String>().trim().replace(' ', "-")
    };
    let headings_of = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().map(prose);
        let headings = lines.filter(|line| line.starts_with('#') && line.contains("# "));
        headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
    };
    let headings: BTreeSet<_> = texts.iter().flat_map(|(_, text)| headings_of(text)).collect();
    // The guide has several pages, and the section has to be on the page that the link names.
    let of_guide = |path: &Path, page: &str| -> Option<BTreeSet<String>> {
        let guide = root().join("src/guide");
        let page = match page.rsplit_once("guide::").or(page.rsplit_once("guide/")) {
            Some((_, page)) => {
                guide.join(page.split(['/', '.']).next().unwrap()).with_extension("md")
            }
            None if page.is_empty() && path.starts_with(&guide) => path.to_path_buf(),
            None => return None,
        };
        Some(headings_of(&fs::read_to_string(page).unwrap()))
    };
    let mut count = 0;
    for (path, text) in &texts {
        for line in text.lines().filter(|line| is_prose(path, line)) {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for (page, section) in links.filter_map(|link| link.split_once('#')) {
                let is_elsewhere = page.starts_with("http") && !page.contains("docs.rs/pollio/");
                if is_elsewhere || page.starts_with("std::") || section.starts_with("method.") {
                    continue;
                }
                let on_page = of_guide(path, page);
                let found = on_page.as_ref().unwrap_or(&headings).contains(section);
                assert!(found, "{}: {page}#{section}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 40, "the links to sections are not found: {count}");
}

/// Tables, code, lines with an address, and the generated results may be longer.
#[test]
fn no_line_of_prose_is_over_120_columns() {
    for (path, text) in texts(&["."]) {
        let mut is_code = path.ends_with("RESULTS.md");
        for (index, line) in text.lines().enumerate() {
            let words = line.trim_start().trim_start_matches(['/', '!']).trim_start();
            is_code ^= words.starts_with("```");
            let may_be_long = is_code || words.starts_with('|') || words.contains("://");
            let is_long = line.chars().count() > 120 && is_prose(&path, line);
            assert!(may_be_long || !is_long, "{}:{}", path.display(), index + 1);
        }
    }
}

/// The docs use words that a reader of epoll(7) knows.
#[test]
fn the_docs_use_the_words_of_the_field() {
    let not_ours = [
        "told",
        "tells of",
        "tell of",
        "in vain",
        "for ever",
        "anew",
        "whoever",
        "meanwhile",
        "come about",
        "comes about",
    ];
    for (path, text) in texts(&["."]) {
        let name = path.strip_prefix(root()).unwrap();
        let is_public = name.starts_with("src")
            || name.starts_with("sim/src")
            || name.ends_with("README.md") && !name.starts_with("tests");
        if !is_public && name != Path::new("COMPARE.md") {
            continue;
        }
        let is_doc = |line: &&str| {
            is_markdown(&path) || ["///", "//!"].iter().any(|start| line.trim().starts_with(start))
        };
        for line in text.lines().filter(is_doc) {
            let words = line.to_lowercase();
            let words: Vec<_> = words.split(|c: char| !c.is_alphanumeric()).collect();
            let line = format!(" {} ", words.join(" "));
            for phrase in not_ours {
                let found = line.contains(&format!(" {phrase} "));
                assert!(!found, "{}: \"{phrase}\" in {line}", path.display());
            }
        }
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// All Rust and Markdown files below these folders, with their texts.
fn texts(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut folders: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", ".git", "vendor"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".rs") || name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                texts.push((path, text));
            }
        }
    }
    assert!(!texts.is_empty());
    texts
}

fn is_wall(path: &Path) -> bool {
    path.starts_with(root().join("src/sys")) || path.ends_with("src/sys.rs")
}

/// Whether `line` is for people: all of Markdown, and comments.
fn is_prose(path: &Path, line: &str) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
        || line.trim_start().starts_with("//")
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}
