//! The layering of the crates, as docs/architecture.md describes it: checked on their `use` lines and paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// The modules of the trainer, from top to bottom. A module imports only modules below it.
const LAYERS: [&str; 10] = [
    "cli",
    "commands",
    "serve",
    "figures",
    "training",
    "inference",
    "run",
    "device",
    "config",
    "process",
];

/// Libraries, and the only places that may mention them.
const CONFINED: [(&[&str], &[&str]); 7] = [
    (
        &["burn", "train"],
        &["trainer/src/training/", "model/src/step.rs"],
    ),
    (&["clap"], &["trainer/src/cli.rs", "trainer/src/commands/"]),
    (&["axum"], &["trainer/src/serve/"]),
    (&["hyper"], &["trainer/src/serve/"]),
    (&["hyper_util"], &["trainer/src/serve/"]),
    (&["tower_http"], &["trainer/src/serve/"]),
    (&["iroh"], &["trainer/src/device/remote/"]),
];

#[test]
fn folders_import_only_folders_below_them() {
    let trainer = &read_crates()["trainer"];
    let root = trainer.file("lib.rs").expect("lib.rs");
    let declared: Vec<&str> = root
        .modules
        .iter()
        .map(String::as_str)
        .filter(|name| LAYERS.contains(name))
        .collect();
    assert_eq!(declared, LAYERS, "the order of the modules in lib.rs");
    assert_none("imports of a folder above", trainer.upward_imports(&LAYERS));
}

#[test]
fn files_do_not_import_each_other_in_a_cycle() {
    let cycles = read_crates().into_values().flat_map(|krate| krate.cycles());
    assert_none("import cycles", cycles.collect());
}

#[test]
fn libraries_are_mentioned_only_in_their_folders() {
    let mut violations = BTreeSet::new();
    for krate in read_crates().values() {
        for file in &krate.files {
            for (library, allowed) in CONFINED {
                let is_in = |place: &str| file.path.starts_with(&format!("crates/{place}"));
                if allowed.iter().any(|place| is_in(place)) {
                    continue;
                }
                let mentions = file.paths.iter().filter(|path| {
                    let names = path.names.iter().map(String::as_str);
                    names.take(library.len()).eq(library.iter().copied())
                });
                violations.extend(mentions.map(|path| {
                    let library = library.join("::");
                    let allowed = allowed.join(" and ");
                    format!(
                        "{}:{}: {library} belongs in {allowed}",
                        file.path, path.line
                    )
                }));
            }
        }
    }
    assert_none("mentions of libraries", violations.into_iter().collect());
}

#[track_caller]
fn assert_none(what: &str, violations: Vec<String>) {
    let list = violations.join("\n");
    assert!(
        violations.is_empty(),
        "{} {what}:\n{list}",
        violations.len()
    );
}

/// A path in the source, such as `crate::run::epoch::Epoch`.
#[derive(Debug)]
struct SourcePath {
    line: usize,
    names: Vec<String>,
    /// The name under which a `use` makes it available.
    alias: Option<String>,
    is_reexport: bool,
    /// Whether it is in code for tests only.
    is_test: bool,
    /// The modules within the file that contain it.
    inner_modules: Vec<String>,
}

/// A source file.
#[derive(Debug)]
struct SourceFile {
    /// Relative to the repository.
    path: String,
    /// The module path in the crate: empty for `lib.rs`.
    module: Vec<String>,
    /// The modules that it declares, in order.
    modules: Vec<String>,
    paths: Vec<SourcePath>,
}

/// The sources of a crate.
struct Crate {
    files: Vec<SourceFile>,
    /// Indices of the files by module path.
    by_module: BTreeMap<Vec<String>, usize>,
}

/// What a path refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// The module of a file itself.
    Module(usize),
    /// An item that is defined in a file.
    Item(usize),
}

/// An import of one file by another.
struct Arrow<'a> {
    from: &'a SourceFile,
    line: usize,
    to: &'a SourceFile,
}

impl fmt::Display for Arrow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, line, to } = self;
        write!(f, "{}:{line} -> {}", from.path, to.path)
    }
}

/// Reads the sources of all crates.
fn read_crates() -> BTreeMap<String, Crate> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut crates = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_string();
        let mut files = Vec::new();
        list_sources(&folder.join("src"), &mut files);
        files.sort();
        let sources = files.iter().map(|path| {
            let within = path.strip_prefix(folder.join("src")).unwrap();
            let within = within.to_str().unwrap().replace('\\', "/");
            (within, fs::read_to_string(path).unwrap())
        });
        crates.insert(name.clone(), Crate::parse(&name, sources));
    }
    crates
}

fn list_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Crate {
    /// Parses sources, given with their paths in `src`.
    fn parse(name: &str, sources: impl IntoIterator<Item = (String, String)>) -> Self {
        let parse = |(path, text): (String, String)| {
            let module = path.trim_end_matches(".rs").split('/').map(String::from);
            let mut module: Vec<String> = module.collect();
            if matches!(module.last().unwrap().as_str(), "lib" | "mod") {
                module.pop();
            }
            let path = format!("crates/{name}/src/{path}");
            SourceFile::parse(path, module, &text)
        };
        let files: Vec<SourceFile> = sources.into_iter().map(parse).collect();
        let modules = files.iter().map(|file| file.module.clone());
        Self {
            by_module: modules.zip(0..).collect(),
            files,
        }
    }

    /// Returns the file with this path in `src`.
    fn file(&self, name: &str) -> Option<&SourceFile> {
        let name = format!("/src/{name}");
        self.files.iter().find(|file| file.path.ends_with(&name))
    }

    /// Returns what a path in `file` refers to, if it is in this crate.
    fn resolve(&self, file: &SourceFile, path: &SourcePath) -> Option<Target> {
        let module = [file.module.as_slice(), &path.inner_modules].concat();
        // A path may begin with a module that a `use` has imported.
        let first = &path.names[0];
        let mut imports = file.paths.iter().filter(|import| {
            let is_import = import.alias.as_ref() == Some(first);
            is_import && !std::ptr::eq(*import, path) && import.names != [first.as_str()]
        });
        let is_declared = self.by_module.contains_key(&child(&module, first));
        if !matches!(first.as_str(), "crate" | "self" | "super")
            && !is_declared
            && let Some(import) = imports.next()
        {
            let names = [import.names.as_slice(), &path.names[1..]].concat();
            let module = [file.module.as_slice(), &import.inner_modules].concat();
            return self.resolve_names(module, &names);
        }
        self.resolve_names(module, &path.names)
    }

    fn resolve_names(&self, mut module: Vec<String>, names: &[String]) -> Option<Target> {
        let mut names = names;
        match names.first()?.as_str() {
            "crate" => (module, names) = (Vec::new(), &names[1..]),
            "self" => names = &names[1..],
            "super" => {
                while let Some((first, rest)) = names.split_first()
                    && first == "super"
                {
                    module.pop();
                    names = rest;
                }
            }
            first if self.by_module.contains_key(&child(&module, first)) => {}
            _ => return None,
        }
        while let Some((first, rest)) = names.split_first() {
            let inner = child(&module, first);
            if !self.by_module.contains_key(&inner) {
                break;
            }
            (module, names) = (inner, rest);
        }
        // A module within a file belongs to the file.
        while !self.by_module.contains_key(&module) {
            module.pop();
        }
        let index = self.by_module[&module];
        let Some(name) = names.first() else {
            return Some(Target::Module(index));
        };
        let mut reexports = self.files[index]
            .paths
            .iter()
            .filter(|path| path.is_reexport);
        let reexport = reexports.find(|path| path.alias.as_ref() == Some(name));
        reexport
            .and_then(|path| self.resolve_names(module, &path.names))
            .or(Some(Target::Item(index)))
    }

    /// Returns the imports of a layer by a layer below it.
    fn upward_imports(&self, layers: &[&str]) -> Vec<String> {
        let layer = |file: &SourceFile| {
            let name = file.module.first()?;
            layers.iter().position(|layer| layer == name)
        };
        let mut violations = Vec::new();
        for file in &self.files {
            for path in &file.paths {
                let Some(Target::Module(to) | Target::Item(to)) = self.resolve(file, path) else {
                    continue;
                };
                if let (Some(from), Some(to)) = (layer(file), layer(&self.files[to]))
                    && to < from
                {
                    let (place, line) = (&file.path, path.line);
                    let [from, to] = [from, to].map(|layer| layers[layer]);
                    violations.push(format!("{place}:{line}: {from} -> {to}"));
                }
            }
        }
        violations
    }

    /// Returns the imports of each file, without those for tests. The re-exports of a module are its table of
    /// contents, not imports.
    fn arrows(&self) -> Vec<Vec<(usize, usize)>> {
        let arrows = self.files.iter().zip(0..).map(|(file, from)| {
            let imports = file
                .paths
                .iter()
                .filter(|path| !path.is_test && !path.is_reexport);
            let arrow = |path| match self.resolve(file, path)? {
                // The items of a module have arrows of their own.
                Target::Module(to) if self.is_table_of_contents(to) => None,
                Target::Module(to) | Target::Item(to) => (to != from).then_some((to, path.line)),
            };
            imports.filter_map(arrow).collect()
        });
        arrows.collect()
    }

    fn is_table_of_contents(&self, index: usize) -> bool {
        let path = &self.files[index].path;
        path.ends_with("/mod.rs") || path.ends_with("/lib.rs")
    }

    /// Returns the import cycles between files.
    fn cycles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let mut cycles = Vec::new();
        let mut done = BTreeSet::new();
        for start in 0..self.files.len() {
            self.find_cycles(&arrows, &mut vec![(start, 0)], &mut done, &mut cycles);
        }
        cycles
    }

    /// Searches depth-first from the last file of `stack`; each entry is a file with the line that imports it.
    fn find_cycles(
        &self,
        arrows: &[Vec<(usize, usize)>],
        stack: &mut Vec<(usize, usize)>,
        done: &mut BTreeSet<usize>,
        cycles: &mut Vec<String>,
    ) {
        let (file, _) = stack[stack.len() - 1];
        if done.contains(&file) {
            return;
        }
        for &(to, line) in &arrows[file] {
            stack.push((to, line));
            match stack[..stack.len() - 1]
                .iter()
                .position(|&(file, _)| file == to)
            {
                None => self.find_cycles(arrows, stack, done, cycles),
                Some(begin) => {
                    let arrows = stack[begin..].windows(2).map(|pair| {
                        let [(from, _), (to, line)] = [pair[0], pair[1]];
                        let [from, to] = [from, to].map(|index| &self.files[index]);
                        Arrow { from, line, to }.to_string()
                    });
                    cycles.push(arrows.collect::<Vec<_>>().join(", "));
                }
            }
            stack.pop();
        }
        done.insert(file);
    }
}

/// Returns the path of a module's child.
fn child(module: &[String], name: &str) -> Vec<String> {
    let mut path = module.to_vec();
    path.push(name.into());
    path
}

impl SourceFile {
    fn parse(path: String, module: Vec<String>, text: &str) -> Self {
        let tokens = tokenize(text);
        let mut file = Self {
            path,
            module,
            modules: Vec::new(),
            paths: Vec::new(),
        };
        // The open blocks: the name of the module, if it is one, and whether it is for tests only.
        let mut blocks: Vec<(Option<String>, bool)> = Vec::new();
        let mut is_cfg_test = false;
        let mut at = 0;
        while at < tokens.len() {
            let word = |offset: usize| {
                tokens
                    .get(at + offset)
                    .map_or("", |(_, word)| word.as_str())
            };
            let in_test = is_cfg_test || blocks.iter().any(|(_, is_test)| *is_test);
            let line = tokens[at].0;
            let previous = at.checked_sub(1).map_or("", |at| tokens[at].1.as_str());
            let new_path = |names, alias, is_reexport, line| SourcePath {
                line,
                names,
                alias,
                is_reexport,
                is_test: in_test,
                inner_modules: blocks.iter().filter_map(|(name, _)| name.clone()).collect(),
            };
            match word(0) {
                "#" if (1..=6).map(word).eq(["[", "cfg", "(", "test", ")", "]"]) => {
                    is_cfg_test = true;
                    at += 7;
                }
                "mod" if word(2) == ";" => {
                    file.modules.push(word(1).into());
                    is_cfg_test = false;
                    at += 3;
                }
                "mod" if word(2) == "{" => {
                    blocks.push((Some(word(1).into()), in_test));
                    is_cfg_test = false;
                    at += 3;
                }
                "{" => {
                    blocks.push((None, in_test));
                    is_cfg_test = false;
                    at += 1;
                }
                "}" => {
                    blocks.pop();
                    at += 1;
                }
                ";" => {
                    is_cfg_test = false;
                    at += 1;
                }
                // Not the bounds `use<..>` of a type.
                "use" if word(1) != "<" => {
                    let is_reexport = matches!(previous, "pub" | ")");
                    let mut found = Vec::new();
                    at += 1;
                    parse_use_tree(&tokens, &mut at, &[], &mut found);
                    for (names, alias, line) in found {
                        file.paths.push(new_path(names, alias, is_reexport, line));
                    }
                }
                name if is_name(name) && word(1) == "::" && previous != "::" => {
                    let mut names = vec![name.to_string()];
                    at += 1;
                    while let [(_, colons), (_, name), ..] = &tokens[at..]
                        && colons == "::"
                        && is_name(name)
                    {
                        names.push(name.clone());
                        at += 2;
                    }
                    file.paths.push(new_path(names, None, false, line));
                }
                _ => at += 1,
            }
        }
        file
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Parses a tree of a `use` from the token `at`, and adds its paths with their aliases and lines to `found`.
fn parse_use_tree(
    tokens: &[(usize, String)],
    at: &mut usize,
    prefix: &[String],
    found: &mut Vec<(Vec<String>, Option<String>, usize)>,
) {
    let mut names = prefix.to_vec();
    let mut line = 0;
    while let Some((token_line, word)) = tokens.get(*at) {
        match word.as_str() {
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|(_, word)| word != "}") {
                    parse_use_tree(tokens, at, &names, found);
                    if tokens.get(*at).is_some_and(|(_, word)| word == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "," | "}" | ";" => break,
            "as" => {
                let alias = tokens[*at + 1].1.clone();
                *at += 2;
                found.push((names, Some(alias), line));
                return;
            }
            "self" if !names.is_empty() => {
                line = *token_line;
                *at += 1;
            }
            "*" => {
                *at += 1;
                found.push((names, None, *token_line));
                return;
            }
            name => {
                names.push(name.into());
                line = *token_line;
                *at += 1;
            }
        }
    }
    let alias = names.last().cloned();
    found.push((names, alias, line));
}

/// Splits a source into words and punctuation with their lines, without comments and literals.
fn tokenize(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let starts_with = |at: usize, word: &str| {
        let mut expected = word.chars().zip(at..);
        expected.all(|(c, at)| chars.get(at) == Some(&c))
    };
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(&c) = chars.get(at) {
        let start = at;
        if starts_with(at, "//") {
            while chars.get(at).is_some_and(|&c| c != '\n') {
                at += 1;
            }
        } else if starts_with(at, "/*") {
            let mut depth = 0;
            loop {
                match (starts_with(at, "/*"), starts_with(at, "*/")) {
                    (true, _) => (depth, at) = (depth + 1, at + 2),
                    (_, true) => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if c == '"' {
            at += 1;
            while chars.get(at).is_some_and(|&c| c != '"') {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == 'r' && (starts_with(at, "r\"") || starts_with(at, "r#")) {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            at += 1 + hashes;
            if chars.get(at) == Some(&'"') {
                let end = format!("\"{}", "#".repeat(hashes));
                at += 1;
                while at < chars.len() && !starts_with(at, &end) {
                    at += 1;
                }
                at += end.len();
            }
        } else if c == '\'' && chars.get(at + 1) == Some(&'\\') {
            at += 3;
            while chars.get(at).is_some_and(|&c| c != '\'') {
                at += 1;
            }
            at += 1;
        } else if c == '\'' && chars.get(at + 2) == Some(&'\'') {
            at += 3;
        } else if c.is_alphanumeric() || c == '_' {
            while chars
                .get(at)
                .is_some_and(|&c| c.is_alphanumeric() || c == '_')
            {
                at += 1;
            }
            tokens.push((line, chars[start..at].iter().collect()));
        } else if starts_with(at, "::") {
            at += 2;
            tokens.push((line, "::".into()));
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push((line, c.into()));
            }
        }
        let end = at.min(chars.len());
        line += chars[start..end].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

/// Parses a crate of the given sources.
fn example(sources: &[(&str, &str)]) -> Crate {
    let sources = sources
        .iter()
        .map(|(path, text)| (path.to_string(), text.to_string()));
    Crate::parse("example", sources)
}

#[test]
fn upward_imports_are_found() {
    let krate = example(&[
        ("lib.rs", "mod top;\nmod bottom;\n"),
        ("top/mod.rs", "mod a;\npub(crate) use a::A;\n"),
        (
            "top/a.rs",
            "// use crate::bottom::C;\nuse crate::bottom::B;\n",
        ),
        (
            "bottom.rs",
            "/* crate::top */ const S: &str = \"crate::top\";\n\
             fn f() { crate::top::A::new('\"') }\n\
             #[cfg(test)]\nmod tests {\n    use std::fmt;\n    use crate::{\n        top::a,\n    };\n}\n",
        ),
    ]);
    assert_eq!(
        krate.upward_imports(&["top", "bottom"]),
        [
            "crates/example/src/bottom.rs:2: bottom -> top",
            "crates/example/src/bottom.rs:7: bottom -> top"
        ]
    );
}

#[test]
fn cycles_are_found_through_reexports() {
    let krate = example(&[
        ("lib.rs", "mod folder;\nmod user;\n"),
        (
            "folder/mod.rs",
            "mod a;\nmod b;\npub use self::{a::A, b::B as C};\n",
        ),
        ("folder/a.rs", "use crate::folder::C;\n"),
        (
            "folder/b.rs",
            "use super::a;\n\nfn f() -> a::A { todo!() }\n",
        ),
        (
            "user.rs",
            "use crate::folder::{self, A};\nfn f() { folder::C::new(); }\n",
        ),
    ]);
    let [a, b] = ["a", "b"].map(|name| format!("crates/example/src/folder/{name}.rs"));
    let cycles = krate.cycles();
    assert!(!cycles.is_empty());
    for cycle in cycles {
        assert!(cycle.starts_with(&format!("{a}:1 -> {b}, {b}:")), "{cycle}");
    }

    let krate = example(&[
        ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
        (
            "a.rs",
            "pub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
        ),
        ("b.rs", "use crate::A;\n"),
    ]);
    assert_eq!(krate.cycles(), [""; 0]);
}
