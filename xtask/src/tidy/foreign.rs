//! Whatever a library shows of another project is a promise that the other's next major version
//! breaks, so each such name is one that `known.rs` gives a reason for.
//!
//! Looked at is what users can reach: signatures, fields, variants, bounds, re-exports, and the
//! headers of trait implementations. What macros make and derives add is not seen.

use std::collections::{BTreeSet, HashSet};

use syn::visit::{self, Visit};
use syn::{FnArg, ImplItem, Item, ReturnType, TraitItem, Visibility};

use super::Complaint;
use super::scope::{self, Target, Workspace, leaves};

/// A crate, a type or trait of another project that it shows, and why.
pub(super) type Shown = (&'static str, &'static str, &'static str);

pub(super) fn check(workspace: &Workspace, known: &[Shown]) -> Vec<Complaint> {
    let mut unused: BTreeSet<Shown> = known.iter().copied().collect();
    let mut complaints = Vec::new();
    for (name, line, module) in shown(workspace) {
        let module = &workspace.modules[module];
        let of_crate = module.path[0].as_str();
        if let Some(entry) = known.iter().find(|(a, b, _)| *a == of_crate && *b == name) {
            unused.remove(entry);
            continue;
        }
        let text = format!(
            "users of {of_crate} see `{name}`, and need the same version of it: show a type of this project, or give a reason \
             in xtask/src/tidy/known.rs"
        );
        complaints.push(Complaint::new(&workspace.sources[module.file].path, line, text));
    }
    for (of_crate, name, _) in unused {
        let text = format!("{of_crate} shows no `{name}` any more: strike it out");
        complaints.push(Complaint::stale(name, &text));
    }
    complaints
}

/// Names of other projects with the line and the module.
fn shown(workspace: &Workspace) -> Vec<(String, usize, usize)> {
    let reachable = Reachable::new(workspace);
    let mut found = Vec::new();
    for (module, here) in workspace.modules.iter().enumerate() {
        let mut reader = Reader { workspace, reachable: &reachable, module, found: &mut found };
        here.items.iter().for_each(|item| reader.item(item));
    }
    found
}

/// What users of the libraries can name.
#[derive(Default)]
struct Reachable {
    modules: HashSet<usize>,
    /// By the module that defines it.
    items: HashSet<(usize, String)>,
}

impl Reachable {
    fn new(workspace: &Workspace) -> Self {
        let mut reachable = Self::default();
        // Programs and tests have no users that compile against them.
        let library = |path: &str| path.starts_with("crates/") && path.ends_with("/src/lib.rs");
        let is_root = |module: &usize| {
            let module = &workspace.modules[*module];
            module.path.len() == 1 && library(&workspace.sources[module.file].path)
        };
        let mut open: Vec<usize> = (0..workspace.modules.len()).filter(is_root).collect();
        while let Some(module) = open.pop() {
            if !reachable.modules.insert(module) {
                continue;
            }
            for item in &workspace.modules[module].items {
                match item {
                    Item::Mod(child) if public(&child.vis) => {
                        open.extend(workspace.child(module, &child.ident.to_string()));
                    }
                    Item::Use(import) if public(&import.vis) => {
                        for leaf in leaves(&import.tree) {
                            let target = workspace.resolve(module, &leaf.path);
                            let (Some(Target::Inside(target)), Some(last)) =
                                (target, leaf.path.last())
                            else {
                                continue;
                            };
                            // The target is the module itself, or what holds the item.
                            match workspace.modules[target].path.last() == Some(last) {
                                true => open.push(target),
                                false => drop(reachable.items.insert((target, last.clone()))),
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        reachable
    }

    fn holds(&self, module: usize, name: &syn::Ident) -> bool {
        self.modules.contains(&module) || self.items.contains(&(module, name.to_string()))
    }
}

struct Reader<'a> {
    workspace: &'a Workspace<'a>,
    reachable: &'a Reachable,
    module: usize,
    found: &'a mut Vec<(String, usize, usize)>,
}

fn public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl Reader<'_> {
    fn item(&mut self, item: &Item) {
        let shown =
            |visibility, name| public(visibility) && self.reachable.holds(self.module, name);
        match item {
            Item::Const(item) if shown(&item.vis, &item.ident) => self.visit_type(&item.ty),
            Item::Static(item) if shown(&item.vis, &item.ident) => self.visit_type(&item.ty),
            Item::Fn(item) if shown(&item.vis, &item.sig.ident) => self.signature(&item.sig),
            Item::Type(item) if shown(&item.vis, &item.ident) => {
                self.visit_generics(&item.generics);
                self.visit_type(&item.ty);
            }
            Item::Struct(item) if shown(&item.vis, &item.ident) => {
                self.visit_generics(&item.generics);
                self.fields(item.fields.iter().filter(|field| public(&field.vis)));
            }
            Item::Enum(item) if shown(&item.vis, &item.ident) => {
                self.visit_generics(&item.generics);
                self.fields(item.variants.iter().flat_map(|variant| &variant.fields));
            }
            Item::Trait(item) if shown(&item.vis, &item.ident) => self.of_trait(item),
            Item::Impl(item) => self.of_impl(item),
            Item::Use(item)
                if public(&item.vis) && self.reachable.modules.contains(&self.module) =>
            {
                for leaf in leaves(&item.tree) {
                    self.name(&leaf.path, leaf.span.start().line);
                }
            }
            // Modules are in the list themselves; the others show nothing.
            _ => {}
        }
    }

    fn signature(&mut self, signature: &syn::Signature) {
        self.visit_generics(&signature.generics);
        for input in &signature.inputs {
            if let FnArg::Typed(input) = input {
                self.visit_type(&input.ty);
            }
        }
        if let ReturnType::Type(_, output) = &signature.output {
            self.visit_type(output);
        }
    }

    fn fields<'f>(&mut self, fields: impl Iterator<Item = &'f syn::Field>) {
        fields.for_each(|field| self.visit_type(&field.ty));
    }

    fn of_trait(&mut self, item: &syn::ItemTrait) {
        self.visit_generics(&item.generics);
        for bound in &item.supertraits {
            self.visit_type_param_bound(bound);
        }
        for item in &item.items {
            match item {
                TraitItem::Fn(item) => self.signature(&item.sig),
                TraitItem::Const(item) => self.visit_type(&item.ty),
                TraitItem::Type(item) => {
                    for bound in &item.bounds {
                        self.visit_type_param_bound(bound);
                    }
                }
                _ => {}
            }
        }
    }

    fn of_impl(&mut self, item: &syn::ItemImpl) {
        let subject = match &*item.self_ty {
            syn::Type::Reference(reference) => &*reference.elem,
            other => other,
        };
        if let syn::Type::Path(subject) = subject
            && !self.is_visible(&subject.path)
        {
            return;
        }
        if let Some((implemented, _)) = &item.trait_ {
            if self.is_visible(implemented) {
                self.visit_generics(&item.generics);
                self.visit_path(implemented);
                self.visit_type(&item.self_ty);
            }
        } else {
            for item in &item.items {
                match item {
                    ImplItem::Fn(item) if public(&item.vis) => self.signature(&item.sig),
                    ImplItem::Const(item) if public(&item.vis) => self.visit_type(&item.ty),
                    _ => {}
                }
            }
        }
    }

    /// Whether users can name a type or trait. What is of another project they can.
    fn is_visible(&self, path: &syn::Path) -> bool {
        let names = scope::names(path);
        let Some(Target::Inside(module)) = self.workspace.resolve(self.module, &names) else {
            return true;
        };
        let name = &path.segments[names.len() - 1].ident;
        let private = |item: &&Item| match item {
            Item::Struct(item) => item.ident == *name && !public(&item.vis),
            Item::Enum(item) => item.ident == *name && !public(&item.vis),
            Item::Trait(item) => item.ident == *name && !public(&item.vis),
            Item::Type(item) => item.ident == *name && !public(&item.vis),
            _ => false,
        };
        let items = &self.workspace.modules[module].items;
        self.reachable.holds(module, name) && !items.iter().any(private)
    }

    fn name(&mut self, path: &[String], line: usize) {
        let Some(Target::Outside(path)) = self.workspace.resolve(self.module, path) else {
            return;
        };
        let of_rust = ["std", "core", "alloc", "Self"].contains(&path[0].as_str());
        // `T::Item` and the like begin with a type.
        let of_type = path[0].starts_with(char::is_uppercase);
        if path.len() > 1 && !of_rust && !of_type {
            self.found.push((path.join("::"), line, self.module));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.segments[0].ident.span().start().line;
        self.name(&scope::names(path), line);
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn complaints(files: &[(&str, &str)], known: &[Shown]) -> Vec<String> {
        let parse = |(path, text): &(&str, &str)| Source::parse(path, (*text).to_owned()).unwrap();
        let sources: Vec<Source> = files.iter().map(parse).collect();
        let complaints = check(&Workspace::new(&sources), known);
        complaints.iter().map(Complaint::to_string).collect()
    }

    #[test]
    fn a_foreign_type_is_found_wherever_users_see_it() {
        let ways = [
            "pub fn f(_: Tensor) {}",
            "pub fn f() -> Option<Tensor> { None }",
            "pub fn f(_: impl Into<Tensor>) {}",
            "pub fn f<T: AsRef<Tensor>>(_: T) {}",
            "pub fn f<T>(_: T) where T: AsRef<Tensor> {}",
            "pub fn f(_: &dyn Fn(&Tensor)) {}",
            "pub struct A { pub inner: Tensor }",
            "pub struct A(pub [Tensor; 2]);",
            "pub enum A { B { inner: Tensor } }",
            "pub type A = Tensor;",
            "pub trait A { fn f(&self) -> Tensor; }",
            "pub trait A: AsRef<Tensor> {}",
            "pub const A: Option<Tensor> = None;",
            "pub struct A; impl A { pub fn f(&self) -> &Tensor { todo!() } }",
            "pub struct A; impl From<Tensor> for A {}",
            "pub struct A; impl From<A> for Tensor {}",
            "pub use candle_core::Tensor as Array;",
        ];
        for way in ways {
            let text = format!("use candle_core::Tensor;\n{way}");
            let found = complaints(&[("crates/a/src/lib.rs", &text)], &[]);
            assert_eq!(found.len(), 1, "{way}: {found:?}");
            let start = "crates/a/src/lib.rs:2: users of tinsmith_a see `candle_core::Tensor`";
            assert!(found[0].starts_with(start), "{way}: {found:?}");
        }
    }

    #[test]
    fn a_foreign_type_is_found_in_modules_that_users_reach() {
        let text = "pub struct A(pub candle_core::Tensor);";
        for root in [
            "pub mod b;",
            "mod b; pub use b::A;",
            "mod b; pub use b::*;",
            "mod b; pub use self::c::A; mod c { pub use super::b::A; }",
        ] {
            let files = [("crates/a/src/lib.rs", root), ("crates/a/src/b.rs", text)];
            let found = complaints(&files, &[]);
            assert_eq!(found.len(), 1, "{root}: {found:?}");
            assert!(found[0].starts_with("crates/a/src/b.rs:1: "), "{root}: {found:?}");
        }
    }

    #[test]
    fn what_users_do_not_see_may_be_foreign() {
        let ways = [
            "fn f(_: Tensor) {}",
            "pub(crate) fn f(_: Tensor) {}",
            "pub struct A { inner: Tensor }",
            "struct A; impl From<Tensor> for A {}",
            "pub struct A; impl A { fn f(&self) -> &Tensor { todo!() } }",
            "pub fn f() { let _: Tensor = todo!(); }",
            "#[cfg(test)] pub fn f(_: Tensor) {}",
            "pub fn f<T>(_: Vec<u8>, _: std::rc::Rc<T>) {}",
            "pub trait A { type Item; fn f(_: Self::Item); }",
        ];
        for way in ways {
            let text = format!("use candle_core::Tensor;\n{way}");
            assert_eq!(complaints(&[("crates/a/src/lib.rs", &text)], &[]), [""; 0], "{way}");
        }
        let hidden = [
            ("crates/a/src/lib.rs", "mod b; pub use b::Other;"),
            ("crates/a/src/b.rs", "pub struct Other; pub struct A(pub candle_core::Tensor);"),
        ];
        assert_eq!(complaints(&hidden, &[]), [""; 0]);
        let program = "pub fn f(_: candle_core::Tensor) {}";
        assert_eq!(complaints(&[("crates/a/src/main.rs", program)], &[]), [""; 0]);
    }

    #[test]
    fn a_foreign_type_is_foreign_through_another_crate_and_ours_is_ours() {
        let files = [
            ("crates/a/src/lib.rs", "mod b; pub use b::Ours; pub use candle_core::Tensor;"),
            ("crates/a/src/b.rs", "pub struct Ours;"),
            (
                "crates/c/src/lib.rs",
                "use tinsmith_a::{Ours, Tensor};\npub fn f(_: Ours) -> Tensor { todo!() }",
            ),
        ];
        let known = [("tinsmith_a", "candle_core::Tensor", "why")];
        let found = complaints(&files, &known);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(
                "crates/c/src/lib.rs:2: users of tinsmith_c see `candle_core::Tensor`"
            ),
            "{found:?}"
        );
    }

    #[test]
    fn a_reason_for_what_is_shown_no_more_is_struck_out() {
        let known = [("tinsmith_a", "candle_core::Tensor", "why")];
        let found = complaints(&[("crates/a/src/lib.rs", "")], &known);
        assert!(found[0].contains("strike it out"), "{found:?}");
    }
}
