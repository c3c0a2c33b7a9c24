//! Both engines accept every statement in `src/store`. The test finds them in the source.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Expr, ExprMethodCall, ExprStruct, FieldValue, Item, ItemConst, ItemFn, Lit, LitStr, Local, Member, Pat,
    Stmt, Token, Visibility,
};
use tollgate::store::Engine;

use crate::support::Database;

/// One statement, with the text for each engine.
pub(super) struct Found {
    pub(super) place: String,
    pub(super) postgres: String,
    pub(super) sqlite: String,
}

/// Collects statements from one file: what is passed to `.query(`, and every `Sql { .. }`.
#[derive(Default)]
struct Finder {
    /// The current file and function.
    place: String,
    /// The values of the file's constants and the function's variables.
    names: HashMap<String, Vec<String>>,
    found: Vec<Found>,
    /// Statements that are built in a way that this test cannot follow.
    unreadable: Vec<String>,
}

impl Finder {
    /// The text of a literal, or of a constant of the same file; each text of a choice.
    fn texts(&self, expression: &Expr) -> Option<Vec<String>> {
        match expression {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(vec![text.value()]),
                _ => None,
            },
            Expr::Macro(call) if call.mac.path.segments.last()?.ident == "concat" => {
                let parts = Punctuated::<Expr, Token![,]>::parse_terminated;
                let mut texts = vec![String::new()];
                for part in call.mac.parse_body_with(parts).ok()? {
                    let ends = self.texts(&part)?;
                    texts = texts
                        .iter()
                        .flat_map(|start| ends.iter().map(move |end| format!("{start}{end}")))
                        .collect();
                }
                Some(texts)
            }
            Expr::Path(path) => self.names.get(&path.path.get_ident()?.to_string()).cloned(),
            Expr::Match(choice) => {
                let texts: Option<Vec<_>> = choice.arms.iter().map(|arm| self.texts(&arm.body)).collect();
                texts.map(|texts| texts.concat())
            }
            Expr::Block(block) => match &*block.block.stmts {
                [Stmt::Expr(only, None)] => self.texts(only),
                _ => None,
            },
            _ => None,
        }
    }

    fn note(&mut self, texts: Option<Vec<[String; 2]>>) {
        let place = &self.place;
        match texts {
            Some(texts) => self.found.extend(texts.into_iter().map(|[postgres, sqlite]| Found {
                place: place.clone(),
                postgres,
                sqlite,
            })),
            None => self.unreadable.push(place.clone()),
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        let outside = self.place.clone();
        self.place = format!("{outside}, {}", function.sig.ident);
        visit::visit_item_fn(self, function);
        self.place = outside;
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        if let Some(texts) = self.texts(&item.expr) {
            self.names.insert(item.ident.to_string(), texts);
        }
        visit::visit_item_const(self, item);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let Some(texts) = self.texts(&init.expr)
        {
            self.names.insert(name.ident.to_string(), texts);
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "query" && call.args.len() == 1 {
            let texts = call.args.first().and_then(|argument| self.texts(argument));
            self.note(texts.map(|texts| texts.into_iter().map(|text| [text.clone(), text]).collect()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_struct(&mut self, made: &'ast ExprStruct) {
        if made.path.is_ident("Sql") {
            let field = |name: &str| {
                let is_it =
                    |field: &&FieldValue| matches!(&field.member, Member::Named(named) if named == name);
                let texts = made.fields.iter().find(is_it).and_then(|field| self.texts(&field.expr))?;
                <[String; 1]>::try_from(texts).ok().map(|[text]| text)
            };
            self.note(
                field("postgres").zip(field("sqlite")).map(|(postgres, sqlite)| vec![[postgres, sqlite]]),
            );
        }
        visit::visit_expr_struct(self, made);
    }
}

/// Literals that look like a statement.
struct LooksLikeSql(Vec<String>);

impl<'ast> Visit<'ast> for LooksLikeSql {
    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        let text = literal.value();
        if ["select ", "insert into ", "update ", "delete from "].iter().any(|verb| text.starts_with(verb)) {
            self.0.push(text);
        }
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("the sources are there").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn parsed(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).expect("the sources are there");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Parts of statements that several files use.
fn shared(files: &[(PathBuf, syn::File)]) -> HashMap<String, Vec<String>> {
    let mut finder = Finder::default();
    for item in files.iter().flat_map(|(_, file)| &file.items) {
        if let Item::Const(item) = item
            && !matches!(item.vis, Visibility::Inherited)
        {
            finder.visit_item_const(item);
        }
    }
    finder.names
}

pub(super) fn statements() -> Vec<Found> {
    let mut all = Vec::new();
    let files = rust_files(&sources().join("store")).into_iter();
    let files: Vec<_> = files.map(|path| (path.clone(), parsed(&path))).collect();
    let names = shared(&files);
    for (path, file) in files {
        let mut finder =
            Finder { place: path.display().to_string(), names: names.clone(), ..Finder::default() };
        finder.visit_file(&file);
        assert!(
            finder.unreadable.is_empty(),
            "give these statements as one literal, or as a constant of the same file or one that several files use, so that this test can \
             prepare them: {:#?}",
            finder.unreadable
        );
        all.extend(finder.found);
    }
    all
}

#[tokio::test]
async fn every_statement_prepares_on_both_engines() {
    let statements = statements();
    assert!(statements.len() >= 40, "only {} statements found: the finder is broken", statements.len());

    let databases = [Database::fresh(Engine::Postgres).await, Database::fresh(Engine::Sqlite).await];
    crate::support::database::open(&databases[1].url).await.close().await;
    let mut postgres = PgConnection::connect(&databases[0].url).await.expect("PostgreSQL answers");
    let mut sqlite = SqliteConnection::connect(&databases[1].url).await.expect("SQLite opens");
    let mut failed = Vec::new();
    for Found { place, postgres: for_postgres, sqlite: for_sqlite } in statements {
        // A copy of an embedded database is made in SQLite's own words.
        let is_sqlites_own = ["vacuum ", "pragma "].iter().any(|verb| for_sqlite.starts_with(verb));
        if !is_sqlites_own
            && let Err(error) = postgres.prepare(AssertSqlSafe(for_postgres).into_sql_str()).await
        {
            failed.push(format!("{place}: PostgreSQL: {error}"));
        }
        if let Err(error) = sqlite.prepare(AssertSqlSafe(for_sqlite).into_sql_str()).await {
            failed.push(format!("{place}: SQLite: {error}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn no_statement_is_anywhere_but_in_the_store() {
    let mut found = LooksLikeSql(Vec::new());
    for path in rust_files(&sources()) {
        if !path.starts_with(sources().join("store")) {
            found.visit_file(&parsed(&path));
        }
    }
    assert!(found.0.is_empty(), "{:#?}", found.0);
}
