//! Among the modules that one module declares there is no circle, and where an order of them is
//! set, no arrow leads up.
//!
//! An arrow leads from a module that names another to that other, or to the siblings that they lie
//! in. A module and what lies in it may name each other: a folder's `mod.rs` is its front and holds
//! what its files share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Complaint;
use super::scope::{self, ModulePath, Target, Workspace, leaves};
use super::source::for_tests;

/// What is allowed, and what is not yet as it should be. Modules are written as paths,
/// `tinsmith_wire::proto`.
pub(super) struct Known {
    /// Modules, and the names of those in it from the lowest to the highest.
    pub orders: &'static [(&'static str, &'static str)],
    pub up: &'static [Up],
    /// Modules, the names of those in it that are a circle, and why.
    pub circles: &'static [(&'static str, &'static str, &'static str)],
}

/// An arrow that leads up in spite of an order: from, to, and why.
type Up = (&'static str, &'static str, &'static str);

/// Where one module names another.
struct Arrow {
    from: usize,
    to: usize,
    line: usize,
}

/// Arrows between the modules that one module declares, by the names of both ends.
type Siblings<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a Arrow>>;

pub(super) fn check(workspace: &Workspace, known: &Known) -> Vec<Complaint> {
    let arrows = arrows(workspace);
    let mut groups: BTreeMap<&[String], Siblings> = BTreeMap::new();
    for arrow in &arrows {
        let (from, to) = (path(workspace, arrow.from), path(workspace, arrow.to));
        let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        // The names differ where both go on; else one lies in the other. Nothing is shared by two
        // crates.
        if let (Some(a), Some(b)) = (from.get(shared), to.get(shared))
            && shared > 0
        {
            let siblings = groups.entry(&from[..shared]).or_default();
            siblings.entry((a, b)).or_default().push(arrow);
        }
    }
    let mut complaints = Vec::new();
    let mut unused: BTreeSet<Up> = known.up.iter().copied().collect();
    let mut circles: BTreeSet<_> = known.circles.iter().map(|(parent, ..)| *parent).collect();
    for (parent, order) in known.orders {
        check_order(workspace, parent, order, &mut complaints);
    }
    for (parent, siblings) in &groups {
        let parent = parent.join("::");
        match known.orders.iter().find(|(ordered, _)| *ordered == parent) {
            Some((_, order)) => {
                check_up(workspace, siblings, order, known.up, &mut unused, &mut complaints)
            }
            None => {
                circles.remove(parent.as_str());
                let here = known.circles.iter().filter(|(known, ..)| *known == parent);
                let allowed = here.map(|(_, modules, _)| modules.split_whitespace().collect());
                check_circles(workspace, &parent, siblings, allowed.collect(), &mut complaints);
            }
        }
    }
    for (from, to, _) in unused {
        let text = format!("no arrow leads from `{from}` up to `{to}` any more: strike it out");
        complaints.push(Complaint::stale(from, &text));
    }
    for parent in circles {
        let text = format!("there is no circle in `{parent}` any more: strike it out");
        complaints.push(Complaint::stale(parent, &text));
    }
    complaints
}

fn path<'a>(workspace: &'a Workspace, module: usize) -> &'a ModulePath {
    &workspace.modules[module].path
}

fn file<'a>(workspace: &'a Workspace, module: usize) -> &'a str {
    &workspace.sources[workspace.modules[module].file].path
}

/// An order names all modules that there are, and no others.
fn check_order(workspace: &Workspace, parent: &str, order: &str, complaints: &mut Vec<Complaint>) {
    let mut missing: BTreeSet<&str> = order.split_whitespace().collect();
    for (index, module) in workspace.modules.iter().enumerate() {
        let Some((name, above)) = module.path.split_last() else {
            continue;
        };
        if above.join("::") == parent && !missing.remove(name.as_str()) {
            let text = format!(
                "`{name}` has no place in the order of `{parent}`: give it one in xtask/src/tidy/known.rs"
            );
            complaints.push(Complaint::new(file(workspace, index), 1, text));
        }
    }
    for name in missing {
        let text = format!("`{parent}` has no `{name}` any more: strike it out of the order");
        complaints.push(Complaint::stale(parent, &text));
    }
}

fn check_up(
    workspace: &Workspace,
    siblings: &Siblings,
    order: &str,
    allowed: &[Up],
    unused: &mut BTreeSet<Up>,
    complaints: &mut Vec<Complaint>,
) {
    let place = |name: &str| order.split_whitespace().position(|other| other == name);
    for ((from, to), arrows) in siblings {
        if place(from) >= place(to) {
            continue;
        }
        for arrow in arrows {
            let ends = [arrow.from, arrow.to].map(|module| path(workspace, module).join("::"));
            if let Some(known) = allowed.iter().find(|(from, to, _)| ends == [*from, *to]) {
                unused.remove(known);
                continue;
            }
            let text = format!(
                "`{}` names `{}`, but `{from}` is below `{to}`: move down what it needs, or up what needs it",
                ends[0], ends[1]
            );
            complaints.push(Complaint::new(file(workspace, arrow.from), arrow.line, text));
        }
    }
}

fn check_circles(
    workspace: &Workspace,
    parent: &str,
    siblings: &Siblings,
    mut allowed: Vec<BTreeSet<&str>>,
    complaints: &mut Vec<Complaint>,
) {
    for circle in circles(siblings) {
        // What is new in it is at fault; with nothing known, all of it.
        let near = allowed.iter().position(|known| !known.is_disjoint(&circle));
        let known = near.map_or_else(BTreeSet::new, |near| allowed.swap_remove(near));
        if known == circle {
            continue;
        }
        let new = |name: &str| !known.contains(name);
        if circle.is_subset(&known) {
            let gone: Vec<&str> = known.difference(&circle).copied().collect();
            let gone = gone.join(", ");
            let text = format!("{gone} are out of the circle in `{parent}`: strike them out");
            complaints.push(Complaint::stale(parent, &text));
            continue;
        }
        for ((from, to), arrows) in siblings {
            let within = circle.contains(from) && circle.contains(to);
            if within && (new(from) || new(to)) {
                let way = way(siblings, to, from).join(" -> ");
                let text = format!(
                    "a circle of modules: {from} -> {way}; move what both need to a module below both"
                );
                let first = arrows[0];
                complaints.push(Complaint::new(file(workspace, first.from), first.line, text));
            }
        }
    }
    for gone in allowed {
        let gone: Vec<&str> = gone.into_iter().collect();
        let text = format!("{} are no circle any more: strike it out", gone.join(", "));
        complaints.push(Complaint::stale(parent, &text));
    }
}

/// The shortest way from one module to another: all on it, with both ends.
fn way<'a>(siblings: &Siblings<'a>, start: &'a str, end: &str) -> Vec<&'a str> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::from([start]);
    while let Some(way) = ways.pop_front() {
        let last = way[way.len() - 1];
        if last == end {
            return way;
        }
        for (_, to) in siblings.keys().filter(|(from, _)| *from == last) {
            if seen.insert(to) {
                ways.push_back([&way[..], &[to]].concat());
            }
        }
    }
    Vec::new()
}

/// The sets of more than one module each of which leads to all others.
fn circles<'a>(siblings: &Siblings<'a>) -> Vec<BTreeSet<&'a str>> {
    let reached = |start: &'a str| {
        let mut found = BTreeSet::new();
        let mut open = vec![start];
        while let Some(from) = open.pop() {
            for (_, to) in siblings.keys().filter(|(a, _)| *a == from) {
                if found.insert(*to) {
                    open.push(to);
                }
            }
        }
        found
    };
    let names: BTreeSet<&str> = siblings.keys().map(|(from, _)| *from).collect();
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        names.into_iter().map(|name| (name, reached(name))).collect();
    let mut circles: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for (name, reached) in &reach {
        let back = |other: &&&str| reach.get(**other).is_some_and(|r| r.contains(name));
        let circle: BTreeSet<&str> = reached.iter().filter(back).copied().collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn arrows(workspace: &Workspace) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (module, here) in workspace.modules.iter().enumerate() {
        let mut finder = Finder { workspace, module, arrows: &mut arrows };
        // Those below are in the list themselves.
        let items = here.items.iter();
        for item in items.filter(|item| !matches!(item, syn::Item::Mod(_))) {
            finder.visit_item(item);
        }
    }
    arrows
}

/// Every path in the code of a module, whether it is imported or written out.
struct Finder<'a> {
    workspace: &'a Workspace<'a>,
    module: usize,
    arrows: &'a mut Vec<Arrow>,
}

impl Finder<'_> {
    fn found(&mut self, path: &[String], line: usize) {
        if let Some(Target::Inside(to)) = self.workspace.resolve(self.module, path) {
            let from = self.module;
            self.arrows.push(Arrow { from, to, line });
        }
    }

    /// What macros are given is not parsed: paths in it are names with `::` between.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut line) = (0, 0);
        for token in tokens {
            let goes_on = match &token {
                TokenTree::Ident(_) => colons == 2,
                TokenTree::Punct(punct) => punct.as_char() == ':',
                TokenTree::Group(_) | TokenTree::Literal(_) => false,
            };
            if !goes_on {
                self.of_macro(&mut path, line);
            }
            colons = if goes_on { colons + 1 } else { 0 };
            match token {
                TokenTree::Ident(ident) => {
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.of_macro(&mut path, line);
    }

    fn of_macro(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.found(path, line);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !for_tests(scope::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        for leaf in leaves(&import.tree) {
            self.found(&leaf.path, leaf.span.start().line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = scope::names(path);
        // A single name was defined here or imported, which counts already.
        if names.len() > 1 {
            self.found(&names, path.segments[0].ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    // Documentation may name anything.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    const NOTHING: Known = Known { orders: &[], up: &[], circles: &[] };

    fn complaints(files: &[(&str, &str)], known: &Known) -> Vec<String> {
        let parse = |(path, text): &(&str, &str)| {
            Source::parse(&format!("crates/a/src/{path}"), (*text).to_owned()).unwrap()
        };
        let sources: Vec<Source> = files.iter().map(parse).collect();
        let complaints = check(&Workspace::new(&sources), known);
        complaints.iter().map(Complaint::to_string).collect()
    }

    /// The lines at which a circle is complained of.
    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        let place = |text: String| text.split(": ").next().unwrap().to_owned();
        complaints(files, &NOTHING).into_iter().map(place).collect()
    }

    #[test]
    fn a_circle_is_found_however_the_modules_name_each_other() {
        let ways = [
            "use crate::b::B;",
            "use super::b::B;",
            "use crate::{b::{self, B}};",
            "use crate::b as other;",
            "use crate::b::*;",
            "fn f(_: crate::b::B) {}",
            "fn f() { crate::b::g(); }",
            "fn f() { println!(\"{}\", crate::b::g()); }",
            "fn f() { use crate::b::B; }",
            "mod inner { use super::super::b::B; }",
            "use crate::B;",
            "use crate::reexported::B;",
        ];
        for way in ways {
            let root = "mod a; mod b; mod reexported; pub use b::B;";
            let files = [
                ("lib.rs", root),
                ("a.rs", &format!("pub struct A;\n{way}")),
                ("b.rs", "pub struct B;\n\nuse crate::a::A;"),
                ("reexported.rs", "pub use crate::b::B;"),
            ];
            let found = lines(&files);
            assert!(found.contains(&"crates/a/src/b.rs:3".to_owned()), "{way}: {found:?}");
            assert!(found.contains(&"crates/a/src/a.rs:2".to_owned()), "{way}: {found:?}");
        }
    }

    #[test]
    fn tests_comments_strings_and_other_crates_make_no_circle() {
        let ways = [
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(all(test, unix))] use crate::b::B;",
            "/// See [`crate::b::B`].\nfn f() {}",
            "fn f() -> &'static str { \"crate::b::B\" }",
            "use std::b::B;",
            "use other::b;",
        ];
        for way in ways {
            let files = [
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", way),
                ("b.rs", "pub struct B; use crate::a;"),
            ];
            assert_eq!(lines(&files), [""; 0], "{way}");
        }
    }

    #[test]
    fn a_folder_is_one_room_to_those_outside() {
        // No file leads to itself, but x leads to y and y to x.
        let files = [
            ("lib.rs", "mod x; mod y;"),
            ("x/mod.rs", "mod high; mod low;"),
            ("x/high.rs", "use crate::y::Y;"),
            ("x/low.rs", "pub struct Low;"),
            ("y.rs", "use crate::x::low::Low;"),
        ];
        assert_eq!(lines(&files), ["crates/a/src/x/high.rs:1", "crates/a/src/y.rs:1"]);
    }

    #[test]
    fn a_folder_and_its_files_may_name_each_other() {
        let files = [
            ("lib.rs", "mod x; fn shared() {}"),
            ("x/mod.rs", "mod y; pub struct X; use y::Y;"),
            ("x/y.rs", "use super::X; pub struct Y; fn f() { crate::shared() }"),
        ];
        assert_eq!(lines(&files), [""; 0]);
    }

    #[test]
    fn an_arrow_up_is_found_and_known_ones_are_allowed() {
        let files = [
            ("lib.rs", "mod low; mod high;"),
            ("low/mod.rs", "mod one;"),
            ("low/one.rs", "\nuse crate::high::two::Two;"),
            ("high/mod.rs", "mod two;"),
            ("high/two.rs", "pub struct Two;"),
        ];
        let orders = &[("tinsmith_a", "low high")];
        let found = complaints(&files, &Known { orders, ..NOTHING });
        assert_eq!(
            found,
            [
                "crates/a/src/low/one.rs:2: `tinsmith_a::low::one` names `tinsmith_a::high::two`, but `low` is below `high`: \
              move down what it needs, or up what needs it"
            ]
        );
        let up = &[("tinsmith_a::low::one", "tinsmith_a::high::two", "why")];
        assert_eq!(complaints(&files, &Known { orders, up, ..NOTHING }), [""; 0]);
        let down = &[("tinsmith_a", "high low")];
        assert_eq!(complaints(&files, &Known { orders: down, ..NOTHING }), [""; 0]);
        let stale = complaints(&files, &Known { orders: down, up, ..NOTHING });
        assert!(stale[0].contains("strike it out"), "{stale:?}");
    }

    #[test]
    fn an_order_names_every_module_and_no_other() {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", ""), ("b.rs", "")];
        let orders = &[("tinsmith_a", "a c")];
        let found = complaints(&files, &Known { orders, ..NOTHING });
        assert!(found[0].contains("`b` has no place in the order"), "{found:?}");
        assert!(found[1].contains("has no `c` any more"), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_known_circle_may_stay_but_neither_grow_nor_be_forgotten() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", "use crate::a;"),
        ];
        let known = |circles| complaints(&files, &Known { circles, ..NOTHING });
        assert_eq!(known(&[("tinsmith_a", "a b c", "why")]), [""; 0]);
        // Only what is new in it is shown.
        let grown = known(&[("tinsmith_a", "a b", "why")]);
        assert_eq!(grown.len(), 2, "{grown:?}");
        assert!(
            grown[0].starts_with("crates/a/src/b.rs:1: a circle of modules: b -> c -> a -> b;"),
            "{grown:?}"
        );
        assert!(
            grown[1].starts_with("crates/a/src/c.rs:1: a circle of modules: c -> a -> b -> c;"),
            "{grown:?}"
        );
        let shrunk = known(&[("tinsmith_a", "a b c d", "why")]);
        assert!(shrunk[0].contains("d are out of the circle"), "{shrunk:?}");
        let gone = known(&[("tinsmith_a", "a b c", "why"), ("tinsmith_a", "e f", "why")]);
        assert!(gone[0].contains("e, f are no circle any more"), "{gone:?}");
        let elsewhere = known(&[("tinsmith_a", "a b c", "why"), ("tinsmith_b", "a b", "why")]);
        assert!(elsewhere[0].contains("no circle in `tinsmith_b`"), "{elsewhere:?}");
    }
}
