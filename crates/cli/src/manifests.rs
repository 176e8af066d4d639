//! Reads manifests: files, directories and standard input, YAML or JSON, several documents, lists.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::resources::Resource;
use spec::ordered::sort_by;
use spec::yaml;

/// Where manifests are read from.
#[derive(Debug, Args, Default, Clone)]
pub struct Files {
    /// A YAML or JSON file, a directory of such files, or `-` for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
    /// Read directories below the given ones, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// One object as a person wrote it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its kind.
    pub resource: &'static Resource,
    /// The whole object, with `metadata.namespace` set where the kind has namespaces.
    pub object: Value,
    /// Which file it comes from, for messages.
    pub origin: String,
}

impl Manifest {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object.name()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.object.namespace()
    }

    /// The path of the object in the API.
    pub fn path(&self) -> String {
        self.resource.object(self.namespace(), self.name())
    }

    /// The path of its collection.
    pub fn collection(&self) -> String {
        self.resource.collection(Some(self.namespace()))
    }

    /// `pod/web`, as kubectl prints it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.resource.named(), self.name())
    }
}

/// One object as it was read, before anybody knows whether its kind is served.
#[derive(Debug)]
pub struct Document {
    object: Value,
    origin: String,
}

impl Files {
    /// All objects of all files, in order. Reads everything before it returns, so that nothing is half applied.
    pub fn documents(&self) -> Result<Vec<Document>, Failure> {
        let mut documents = Vec::new();
        for given in &self.filename {
            for (origin, text) in texts(given, self.recursive)? {
                for document in parse(&text, &origin)? {
                    collect(document, &origin, &mut documents)?;
                }
            }
        }
        if documents.is_empty() {
            return Err(if self.filename.is_empty() {
                Failure::new("no manifest is named").hint("name one with `-f FILE`, or `-f -` for standard input")
            } else {
                Failure::new("there is no object in what -f names")
            });
        }
        Ok(documents)
    }
}

impl Document {
    /// Whether its kind is in the catalog.
    pub fn is_of(&self, catalog: &Catalog) -> bool {
        catalog.by_kind(self.object.text("/apiVersion"), self.object.text("/kind")).is_ok()
    }

    /// The object with its kind. `namespace` is the one asked for by `--namespace`, if any.
    pub fn resolve(mut self, catalog: &Catalog, namespace: Option<&str>) -> Result<Manifest, Failure> {
        let resource =
            catalog.by_kind(self.object.text("/apiVersion"), self.object.text("/kind")).map_err(|failure| {
                Failure::new(format!("{}: object {:?}", self.origin, self.object.name())).because(failure)
            })?;
        if resource.namespaced {
            set_namespace(&mut self.object, &self.origin, namespace)?;
        }
        Ok(Manifest { resource, object: self.object, origin: self.origin })
    }
}

/// The documents of a text. JSON is YAML, but its own parser's messages fit it better.
pub fn parse(text: &str, origin: &str) -> Result<Vec<Value>, Failure> {
    if text.trim_start().starts_with('{') && !text.contains("\n---") {
        return match serde_json::Deserializer::from_str(text).into_iter::<Value>().collect() {
            Ok(documents) => Ok(documents),
            Err(error) => {
                Err(Failure::new(format!("{origin}: line {}, column {}: not valid JSON", error.line(), error.column()))
                    .because(error))
            }
        };
    }
    yaml::documents(text).map_err(|error| yaml_failure(&error, text, origin))
}

fn yaml_failure(error: &serde_saphyr::Error, text: &str, origin: &str) -> Failure {
    let place = match error.location() {
        Some(at) if at.line() > 0 => format!("{origin}: line {}, column {}", at.line(), at.column()),
        _ => origin.to_owned(),
    };
    let failure = Failure::new(format!("{place}: not valid YAML")).because(yaml::message(error));
    let line = error.location().and_then(|at| text.lines().nth(usize::try_from(at.line()).ok()?.checked_sub(1)?));
    match line {
        Some(line) if line.contains('\t') => failure.hint("YAML is indented with spaces; this line has a tab"),
        _ => failure,
    }
}

fn collect(document: Value, origin: &str, documents: &mut Vec<Document>) -> Result<(), Failure> {
    if document.is_null() {
        return Ok(());
    }
    let kind = document.text("/kind");
    if kind == "List" || (kind.ends_with("List") && document.at("/items").is_array()) {
        for (index, item) in document.items("/items").iter().enumerate() {
            collect(item.clone(), &format!("{origin}: items[{index}]"), documents)?;
        }
        return Ok(());
    }
    documents.push(checked(document, origin)?);
    Ok(())
}

fn checked(object: Value, origin: &str) -> Result<Document, Failure> {
    if !object.is_object() {
        return Err(Failure::new(format!(
            "{origin}: a manifest is a mapping with `apiVersion`, `kind` and `metadata`"
        )));
    }
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        if object.text(field).is_empty() {
            let name = field.trim_start_matches('/').replace('/', ".");
            return Err(Failure::new(format!("{origin}: {name}: Required value"))
                .hint("every manifest starts with `apiVersion: v1`, `kind: Pod` and `metadata: {name: …}`"));
        }
    }
    Ok(Document { object, origin: origin.to_owned() })
}

fn set_namespace(object: &mut Value, origin: &str, namespace: Option<&str>) -> Result<(), Failure> {
    let own = object.namespace();
    match namespace {
        Some(asked) if !own.is_empty() && own != asked => {
            Err(Failure::new(format!("{origin}: the object's namespace {own:?} does not match --namespace {asked}"))
                .hint("leave out -n, or take the namespace out of the manifest"))
        }
        _ => {
            if own.is_empty()
                && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.insert("namespace".to_owned(), json!(namespace.unwrap_or("default")));
            }
            Ok(())
        }
    }
}

fn texts(given: &Path, recursive: bool) -> Result<Vec<(String, String)>, Failure> {
    if given.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new("cannot read standard input").because(error))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let origin = given.display().to_string();
    if origin.starts_with("http://") || origin.starts_with("https://") {
        return Err(Failure::new(format!("{origin}: fetching manifests is not supported"))
            .hint(format!("fetch it with curl: `curl -fsSL {origin} | monopod apply -f -`")));
    }
    let cannot_read = |error| Failure::new(format!("cannot read {origin}")).because(error);
    if !fs::metadata(given).map_err(cannot_read)?.is_dir() {
        return Ok(vec![(origin.clone(), fs::read_to_string(given).map_err(cannot_read)?)]);
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(given).map_err(cannot_read)? {
        entries.push(entry.map_err(cannot_read)?.path());
    }
    sort_by(&mut entries, Ord::cmp);
    let mut texts = Vec::new();
    for path in entries {
        let is_manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if (path.is_dir() && recursive) || (is_manifest && path.is_file()) {
            texts.extend(self::texts(&path, recursive)?);
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, namespace: Option<&str>) -> Result<Vec<String>, String> {
        let mut documents = Vec::new();
        for document in parse(text, "pod.yaml").map_err(rendered)? {
            collect(document, "pod.yaml", &mut documents).map_err(rendered)?;
        }
        let resolve = |document: Document| document.resolve(&Catalog::built_in(), namespace).map_err(rendered);
        let manifests = documents.into_iter().map(resolve).collect::<Result<Vec<Manifest>, _>>()?;
        Ok(manifests.iter().map(|m| format!("{} in {:?}", m.label(), m.namespace())).collect())
    }

    fn rendered(failure: Failure) -> String {
        crate::errors::render(&failure.into())
    }

    #[test]
    fn documents_keep_their_order_and_get_a_namespace() {
        let text = "# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
            apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n---\n---\n\
            {\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"c\"}}\n";
        assert_eq!(
            read(text, None).unwrap(),
            ["namespace/shop in \"\"", "pod/web in \"shop\"", "configmap/c in \"default\""]
        );
        let list = r#"{"kind": "List", "apiVersion": "v1", "items": [
            {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}},
            {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "b"}}]}"#;
        assert_eq!(read(list, Some("x")).unwrap(), ["pod/a in \"x\"", "secret/b in \"x\""]);
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let cases = [
            ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n name: b\n", None),
            ("apiVersion: v1\nkind: Pod\nspec:\n\tcontainers: []\n", None),
            ("kind: Pod\nkind: Pod\n", None),
            ("{\"kind\": \"Pod\",\n \"a\" 1}", None),
            ("apiVersion: v1\nkind: Pod\n", None),
            ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n", None),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n", Some("c")),
            ("- a\n- b\n", None),
        ];
        let errors: Vec<_> = cases.iter().map(|(text, namespace)| read(text, *namespace).unwrap_err()).collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn directories_are_read_in_order_and_deeper_only_if_asked() {
        let directory = tempfile::tempdir().unwrap();
        let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
        fs::create_dir(directory.path().join("deep")).unwrap();
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a"), ("deep/c.json", "c"), ("notes.txt", "ignored")] {
            fs::write(directory.path().join(file), pod(name)).unwrap();
        }
        let names = |recursive| {
            let files = Files { filename: vec![directory.path().to_owned()], recursive };
            files.documents().unwrap().iter().map(|d| d.object.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a", "b"]);
        assert_eq!(names(true), ["a", "b", "c"]);
    }
}
