//! Which module a path means: the modules of every crate of the workspace, and the names that each
//! brings in.

use std::collections::{HashMap, HashSet};

use proc_macro2::Span;
use syn::{Attribute, Item, UseTree};

use super::source::{Source, for_tests};

/// The crate's name in paths, then the names of the modules down to one.
pub(super) type ModulePath = Vec<String>;

/// A module that is not for tests.
pub(super) struct Module<'a> {
    pub path: ModulePath,
    /// The index of its file.
    pub file: usize,
    pub items: Vec<&'a Item>,
    children: HashSet<String>,
    /// What is defined here.
    defined: HashSet<String>,
    /// What is brought in by `use`: its path as it is written.
    names: HashMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A module of the workspace, or something that it defines.
    Inside(usize),
    /// A path into a crate that is not of the workspace.
    Outside(Vec<String>),
}

pub(super) struct Workspace<'a> {
    pub sources: &'a [Source],
    pub modules: Vec<Module<'a>>,
    by_path: HashMap<Vec<String>, usize>,
}

/// The name in paths of the crate whose root is this file, and the folder of its sources.
fn crate_root(path: &str) -> Option<(String, String)> {
    let (package, file) = path.rsplit_once("/src/")?;
    if file != "lib.rs" && file != "main.rs" {
        return None;
    }
    let name = match package.strip_prefix("crates/") {
        Some(name) => format!("tinsmith_{name}"),
        None => package.replace('/', "_"),
    };
    Some((name, format!("{package}/src")))
}

impl<'a> Workspace<'a> {
    /// Follows the `mod` declarations from the root of each crate. Where a package has a library,
    /// its program is one file beside it and not followed.
    pub fn new(sources: &'a [Source]) -> Self {
        let mut workspace = Workspace { sources, modules: Vec::new(), by_path: HashMap::new() };
        let mut files: HashMap<&str, usize> = HashMap::new();
        for (i, source) in sources.iter().enumerate() {
            files.insert(&source.path, i);
        }
        // `lib.rs` comes before `main.rs`.
        let mut sorted: Vec<(&str, usize)> = files.iter().map(|(path, i)| (*path, *i)).collect();
        sorted.sort_unstable();
        for (path, file) in sorted {
            if let Some((name, folder)) = crate_root(path)
                && !workspace.by_path.contains_key(&vec![name.clone()])
            {
                let items = &sources[file].syntax.items;
                workspace.add(vec![name], file, items, &folder, &files);
            }
        }
        workspace
    }

    /// A module, and those below it; `folder` is where the files of those are.
    fn add(
        &mut self,
        path: Vec<String>,
        file: usize,
        items: &'a [Item],
        folder: &str,
        files: &HashMap<&str, usize>,
    ) {
        let mut module = Module {
            path: path.clone(),
            file,
            items: Vec::new(),
            children: HashSet::new(),
            defined: HashSet::new(),
            names: HashMap::new(),
            globs: Vec::new(),
        };
        let mut below = Vec::new();
        for item in items.iter().filter(|item| !for_tests(attributes(item))) {
            module.items.push(item);
            match item {
                Item::Mod(child) => {
                    module.children.insert(child.ident.to_string());
                    below.push(child);
                }
                Item::Use(import) => {
                    for leaf in leaves(&import.tree) {
                        match leaf.name {
                            Some(name) => {
                                module.names.insert(name, leaf.path);
                            }
                            None => module.globs.push(leaf.path),
                        }
                    }
                }
                other => module.defined.extend(name_of(other)),
            }
        }
        self.by_path.insert(path.clone(), self.modules.len());
        self.modules.push(module);
        for child in below {
            let name = child.ident.to_string();
            let folder_of_child = format!("{folder}/{name}");
            let path = [&path[..], &[name]].concat();
            if let Some((_, items)) = &child.content {
                self.add(path, file, items, &folder_of_child, files);
                continue;
            }
            let places = [format!("{folder_of_child}.rs"), format!("{folder_of_child}/mod.rs")];
            if let Some(&file) = places.iter().find_map(|place| files.get(place.as_str())) {
                let items = &self.sources[file].syntax.items;
                self.add(path, file, items, &folder_of_child, files);
            }
        }
    }

    pub fn child(&self, module: usize, name: &str) -> Option<usize> {
        let path = [&self.modules[module].path[..], &[name.to_owned()]].concat();
        self.by_path.get(&path).copied()
    }

    /// Where a path leads that stands in this module. Names that only the compiler knows (of the
    /// prelude, of primitives, of type parameters) come back as paths into crates of their name.
    pub fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.look_up(module, path, 0)
    }

    fn look_up(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        // `use` declarations may lead in circles.
        if depth > 32 {
            return None;
        }
        let here = &self.modules[from].path;
        let (first, rest) = path.split_first()?;
        let absolute = match first.as_str() {
            "crate" => [&here[..1], rest].concat(),
            "self" => [&here[..], rest].concat(),
            "super" => {
                let above = path.iter().take_while(|name| *name == "super").count();
                let kept = here.len().checked_sub(above)?;
                [&here[..kept], &path[above..]].concat()
            }
            _ => {
                let relative = self.within(from, path, depth);
                if relative.is_some() {
                    return relative;
                }
                path.to_vec()
            }
        };
        let Some(&root) = self.by_path.get(absolute.get(..1)?) else {
            return Some(Target::Outside(absolute));
        };
        // What a macro defines is not seen, so a name that is not found is taken for one of the
        // last module's.
        let mut module = root;
        let mut rest = &absolute[1..];
        while let Some((name, after)) = rest.split_first()
            && (!after.is_empty() || !self.modules[module].names.contains_key(name))
            && let Some(&child) = self.by_path.get(&absolute[..=absolute.len() - rest.len()])
        {
            (module, rest) = (child, after);
        }
        let found = self.within(module, rest, depth);
        Some(found.unwrap_or(Target::Inside(module)))
    }

    /// Where a path leads that begins with something in this module.
    fn within(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let here = &self.modules[module];
        let Some((first, rest)) = path.split_first() else {
            return Some(Target::Inside(module));
        };
        // A module and a function may have one name; only the module has something in it.
        if here.children.contains(first) && (!rest.is_empty() || !here.names.contains_key(first)) {
            let inside = [&["self".to_owned()], path].concat();
            return self.look_up(module, &inside, depth + 1);
        }
        if here.defined.contains(first) {
            return Some(Target::Inside(module));
        }
        match here.names.get(first) {
            // `use serde;`: a crate by its own name.
            Some(import) if import[..] == path[..1] => None,
            Some(import) => self.look_up(module, &[&import[..], rest].concat(), depth + 1),
            None => {
                here.globs.iter().find_map(|glob| match self.look_up(module, glob, depth + 1)? {
                    Target::Inside(other) if other != module => self.within(other, path, depth + 1),
                    Target::Inside(_) | Target::Outside(_) => None,
                })
            }
        }
    }
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The names of a path, without what they are applied to.
pub(super) fn names(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// One name of a `use` declaration; of a glob, no name.
pub(super) struct Leaf {
    pub path: Vec<String>,
    pub name: Option<String>,
    pub span: Span,
}

pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    fn walk(tree: &UseTree, path: &[String], found: &mut Vec<Leaf>) {
        let with = |ident: &syn::Ident| [path, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(tree) => walk(&tree.tree, &with(&tree.ident), found),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, path, found)),
            UseTree::Glob(glob) => {
                found.push(Leaf { path: path.to_vec(), name: None, span: glob.star_token.spans[0] })
            }
            UseTree::Name(name) if name.ident == "self" => found.push(Leaf {
                path: path.to_vec(),
                name: path.last().cloned(),
                span: name.ident.span(),
            }),
            UseTree::Name(name) => found.push(Leaf {
                path: with(&name.ident),
                name: Some(name.ident.to_string()),
                span: name.ident.span(),
            }),
            UseTree::Rename(renamed) => found.push(Leaf {
                path: match renamed.ident == "self" {
                    true => path.to_vec(),
                    false => with(&renamed.ident),
                },
                name: Some(renamed.rename.to_string()),
                span: renamed.ident.span(),
            }),
        }
    }
    let mut found = Vec::new();
    walk(tree, &[], &mut found);
    found
}
