//! `get`: objects as the server's tables, as documents, or by name; once or followed.

use std::borrow::Cow;
use std::pin::pin;

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::context::Context;
use crate::errors::{Failure, is_not_found, joined};
use crate::fields::Fields as _;
use crate::json_path::{Path, Template, compare};
use crate::manifests::Files;
use crate::output::{Document, note};
use crate::resources::{Resource, Target, with_query};
use crate::table::{Columns, Layout, Table};
use crate::watch::is_expired;

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to show: `pods`, `pods,cm`, `pod web db`, or `pod/web cm/config`
    #[arg(value_name = "KIND [NAME…] | KIND/NAME…")]
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The form: `wide`, `yaml`, `json`, `name`, or `jsonpath=TEMPLATE`, such as `jsonpath={.items[*].metadata.name}`
    #[arg(short, long, value_name = "FORM", value_parser = parse_form)]
    output: Option<Form>,
    /// Sort by a field, such as `.metadata.creationTimestamp`
    #[arg(long, value_name = "PATH", value_parser = Path::parse)]
    sort_by: Option<Path>,
    /// Show changes as they come, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Only objects with these labels, such as `app=web,tier!=db`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only objects with these fields, such as `status.phase=Running`
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Add a column with all labels
    #[arg(long)]
    show_labels: bool,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
    /// An object that doesn't exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Show who set which field, which `-o yaml` and `-o json` leave out
    #[arg(long)]
    show_managed_fields: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// A table with more columns
    Wide,
    /// Whole objects as YAML
    Yaml,
    /// Whole objects as JSON
    Json,
    /// `kind/name`, one per line
    Name,
    /// What a template makes of them
    Template(Template),
}

fn parse_form(text: &str) -> Result<Form, String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("wide", "") => Ok(Form::Wide),
        ("yaml", "") => Ok(Form::Yaml),
        ("json", "") => Ok(Form::Json),
        ("name", "") => Ok(Form::Name),
        ("jsonpath", template) if !template.is_empty() => Template::parse(template).map(Form::Template),
        _ => Err("it must be wide, yaml, json, name or jsonpath=TEMPLATE".to_owned()),
    }
}

/// One request: where a target's objects are.
struct Request {
    resource: &'static Resource,
    path: String,
    /// Set if a single object is meant.
    name: Option<String>,
    namespace: Option<String>,
}

/// Shows objects.
pub async fn get(arguments: &GetArgs, context: &mut Context) -> Result<()> {
    let requests = requests(arguments, context).await?;
    if arguments.watch {
        return match requests.as_slice() {
            [request] => watch(arguments, context, request).await,
            _ => Err(Failure::new("only one kind, or one object, can be watched at a time").into()),
        };
    }
    let table = matches!(arguments.output, None | Some(Form::Wide));
    let mut answers = Vec::new();
    let mut errors = Vec::new();
    for request in &requests {
        let answer =
            if table { context.client.get_table(&request.path).await } else { context.client.get(&request.path).await };
        match answer {
            Ok(answer) => answers.push((request, answer)),
            Err(error) if is_not_found(&error) && arguments.ignore_not_found => {}
            Err(error) => errors.push(error),
        }
    }
    if let Some(path) = &arguments.sort_by {
        for (_, answer) in &mut answers {
            sort(answer, path);
        }
    }
    match &arguments.output {
        None | Some(Form::Wide) => show_tables(arguments, context, &answers, errors.is_empty())?,
        Some(Form::Name) => show_names(context, &answers)?,
        Some(form) => {
            if let Some(document) = document_of(arguments, answers) {
                show_document(context, &document, form)?;
            }
        }
    }
    context.out.flush()?;
    joined(errors)
}

async fn requests(arguments: &GetArgs, context: &Context) -> Result<Vec<Request>> {
    if !arguments.files.filename.is_empty() {
        let manifests = context.manifests(&arguments.files).await?;
        let of_manifest = |manifest: &crate::manifests::Manifest| Request {
            resource: manifest.resource,
            path: manifest.path(),
            name: Some(manifest.name().to_owned()),
            namespace: Some(manifest.namespace().to_owned()),
        };
        return Ok(manifests.iter().map(of_manifest).collect());
    }
    let targets = context.targets(&arguments.resources).await?;
    targets.into_iter().map(|target| request(arguments, context, target)).collect()
}

fn request(arguments: &GetArgs, context: &Context, target: Target) -> Result<Request> {
    let namespace = (!arguments.all_namespaces).then(|| context.namespace().to_owned());
    let Some(name) = target.name else {
        let mut query = selectors(arguments, None);
        if arguments.sort_by.is_some() && matches!(arguments.output, None | Some(Form::Wide)) {
            query.push(("includeObject", "Object"));
        }
        let path = with_query(&target.resource.collection(namespace.as_deref()), &query);
        return Ok(Request { resource: target.resource, path, name: None, namespace });
    };
    if arguments.selector.is_some() || (arguments.all_namespaces && target.resource.namespaced) {
        return Err(Failure::new("a name can't be combined with a selector or with all namespaces").into());
    }
    let path = target.resource.object(context.namespace(), &name);
    Ok(Request { resource: target.resource, path, name: Some(name), namespace })
}

fn selectors<'a>(arguments: &'a GetArgs, name: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let fields = name.or(arguments.field_selector.as_deref()).map(|fields| ("fieldSelector", fields));
    arguments.selector.as_deref().map(|labels| ("labelSelector", labels)).into_iter().chain(fields).collect()
}

fn columns<'a>(arguments: &GetArgs, resource: &'a Resource, several_kinds: bool) -> Columns<'a> {
    Columns {
        wide: arguments.output == Some(Form::Wide),
        namespace: arguments.all_namespaces && resource.namespaced,
        labels: arguments.show_labels,
        prefix: if several_kinds { resource.named() } else { Cow::Borrowed("") },
    }
}

fn show_tables(
    arguments: &GetArgs,
    context: &mut Context,
    answers: &[(&Request, Value)],
    say_if_empty: bool,
) -> Result<()> {
    let several_kinds =
        answers.iter().any(|(request, _)| answers.first().is_some_and(|(first, _)| first.resource != request.resource));
    let mut shown = false;
    for group in answers.chunk_by(|(one, _), (other, _)| one.resource == other.resource) {
        let Some((request, first)) = group.first() else { continue };
        let definitions = first.items("/columnDefinitions");
        let columns = columns(arguments, request.resource, several_kinds);
        let mut table = Table::from_server(first, definitions, &columns);
        for (_, more) in group.iter().skip(1) {
            table.rows.extend(Table::from_server(more, definitions, &columns).rows);
        }
        if table.rows.is_empty() {
            continue;
        }
        if arguments.no_headers {
            table.headings.clear();
        }
        if shown {
            context.out.line("")?;
        }
        shown = true;
        let mut layout = Layout::default();
        layout.widen(&table);
        if !arguments.no_headers {
            context.out.text(&layout.headings(&table))?;
        }
        context.out.text(&layout.rows(&table))?;
    }
    if !shown && say_if_empty && !arguments.ignore_not_found {
        note(&none_found(answers));
    }
    Ok(())
}

fn none_found(answers: &[(&Request, Value)]) -> String {
    let namespaced = answers.iter().any(|(request, _)| request.resource.namespaced);
    match answers.first().and_then(|(request, _)| request.namespace.as_deref()).filter(|_| namespaced) {
        Some(namespace) => format!("No resources found in {namespace} namespace."),
        None => "No resources found".to_owned(),
    }
}

fn show_names(context: &mut Context, answers: &[(&Request, Value)]) -> Result<()> {
    for (request, answer) in answers {
        let objects = if request.name.is_some() { std::slice::from_ref(answer) } else { answer.items("/items") };
        for object in objects {
            context.out.line(&format!("{}/{}", request.resource.named(), object.name()))?;
        }
    }
    Ok(())
}

/// One object, or a list of all.
fn document_of(arguments: &GetArgs, answers: Vec<(&Request, Value)>) -> Option<Value> {
    let single = matches!(answers.as_slice(), [(request, _)] if request.name.is_some());
    if answers.is_empty() {
        return None;
    }
    let mut objects = Vec::new();
    for (request, mut answer) in answers {
        if request.name.is_some() {
            objects.push(complete(arguments, request.resource, answer));
        } else if let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) {
            objects.extend(items.drain(..).map(|item| complete(arguments, request.resource, item)));
        }
    }
    if single {
        return objects.pop();
    }
    Some(json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}))
}

fn show_document(context: &mut Context, document: &Value, form: &Form) -> Result<()> {
    match form {
        Form::Template(template) => context.out.text(&template.render(document)),
        Form::Json => context.out.document(document, Document::Json),
        Form::Wide | Form::Yaml | Form::Name => context.out.document(document, Document::Yaml),
    }
}

/// Sorts the rows of a table by their objects, or the items of a list.
fn sort(answer: &mut Value, path: &Path) {
    let is_table = answer.at("/rows").is_array();
    let list = if is_table { "rows" } else { "items" };
    let key = |item: &Value| {
        let object = if is_table { item.at("/object") } else { item };
        path.find(object, object).first().copied().cloned().unwrap_or_default()
    };
    if let Some(items) = answer.get_mut(list).and_then(Value::as_array_mut) {
        spec::ordered::sort_by(items, |one, other| compare(&key(one), &key(other)));
    }
}

/// Items of lists come without their kind; managed fields are noise for people.
fn complete(arguments: &GetArgs, resource: &Resource, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| json!(resource.api_version));
        fields.entry("kind").or_insert_with(|| json!(resource.kind));
        if !arguments.show_managed_fields
            && let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
    }
    object
}

async fn watch(arguments: &GetArgs, context: &mut Context, request: &Request) -> Result<()> {
    let as_table = matches!(arguments.output, None | Some(Form::Wide));
    let only = request.name.as_ref().map(|name| format!("metadata.name={name}"));
    let collection = request.resource.collection(request.namespace.as_deref());
    let mut view =
        View { arguments, resource: request.resource, definitions: Vec::new(), layout: Layout::default(), shown: 0 };
    let mut revision = String::new();
    loop {
        let mut query = selectors(arguments, only.as_deref());
        if revision.is_empty() {
            let path = with_query(&collection, &query);
            let found =
                if as_table { context.client.get_table(&path).await? } else { context.client.get(&path).await? };
            found.text("/metadata/resourceVersion").clone_into(&mut revision);
            view.show_list(context, found)?;
        }
        query.extend([("watch", "true"), ("resourceVersion", revision.as_str())]);
        let path = with_query(&collection, &query);
        let events = if as_table {
            context.client.watch_table(&path).await?.left_stream()
        } else {
            context.client.watch(&path).await?.right_stream()
        };
        let mut next = revision.clone();
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Err(error) if is_expired(&error) => {
                    next.clear();
                    break;
                }
                Err(error) => return Err(error),
                Ok(event) => {
                    if let Some(seen) = revision_of(&event.object) {
                        seen.clone_into(&mut next);
                    }
                    if event.kind != "BOOKMARK" {
                        view.show(context, event.object)?;
                    }
                }
            }
        }
        revision = next;
    }
}

fn revision_of(object: &Value) -> Option<&str> {
    let places = ["/rows/0/object/metadata/resourceVersion", "/metadata/resourceVersion"];
    places.into_iter().map(|place| object.text(place)).find(|revision| !revision.is_empty())
}

/// What a watch has shown so far.
struct View<'a> {
    arguments: &'a GetArgs,
    resource: &'static Resource,
    definitions: Vec<Value>,
    layout: Layout,
    shown: usize,
}

impl View<'_> {
    fn show_list(&mut self, context: &mut Context, mut list: Value) -> Result<()> {
        match &self.arguments.output {
            None | Some(Form::Wide) => self.show(context, list),
            Some(_) => {
                let items = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
                items.unwrap_or_default().into_iter().try_for_each(|item| self.show(context, item))
            }
        }
    }

    fn show(&mut self, context: &mut Context, object: Value) -> Result<()> {
        match &self.arguments.output {
            None | Some(Form::Wide) => self.show_rows(context, &object)?,
            Some(Form::Name) => context.out.line(&format!("{}/{}", self.resource.named(), object.name()))?,
            Some(form) => {
                if *form == Form::Yaml && self.shown > 0 {
                    context.out.line("---")?;
                }
                show_document(context, &complete(self.arguments, self.resource, object), form)?;
            }
        }
        self.shown += 1;
        context.out.flush()
    }

    fn show_rows(&mut self, context: &mut Context, table: &Value) -> Result<()> {
        if !table.items("/columnDefinitions").is_empty() {
            self.definitions = table.items("/columnDefinitions").to_vec();
        }
        let columns = columns(self.arguments, self.resource, false);
        let rows = Table::from_server(table, &self.definitions, &columns);
        if rows.rows.is_empty() {
            return Ok(());
        }
        let first = self.layout.is_empty();
        self.layout.widen(&rows);
        if first && !self.arguments.no_headers {
            context.out.text(&self.layout.headings(&rows))?;
        }
        context.out.text(&self.layout.rows(&rows))
    }
}
