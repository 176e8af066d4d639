//! From Kubernetes' `generated.proto` and `types.go` files to the fields of each message, as the API decodes bodies.
//!
//! The `.proto` files tell numbers and types; whether an empty value means something is only in the Go types: Go's JSON
//! leaves out what is empty, unless the field is a pointer or has no `omitempty`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Packages whose kinds may be sent, and what they are made of; below `k8s.io/`.
const PACKAGES: [&str; 20] = [
    "api/apps/v1",
    "api/authentication/v1",
    "api/authorization/v1",
    "api/autoscaling/v1",
    "api/batch/v1",
    "api/coordination/v1",
    "api/core/v1",
    "api/discovery/v1",
    "api/events/v1",
    "api/networking/v1",
    "api/node/v1",
    "api/policy/v1",
    "api/rbac/v1",
    "api/scheduling/v1",
    "api/storage/v1",
    "apimachinery/pkg/api/resource",
    "apimachinery/pkg/apis/meta/v1",
    "apimachinery/pkg/runtime",
    "apimachinery/pkg/runtime/schema",
    "apimachinery/pkg/util/intstr",
];

/// How Go's JSON writes a field: by struct and number.
type GoFields = BTreeMap<(String, u32), GoField>;

struct GoField {
    name: String,
    inline: bool,
    keeps_empty: bool,
}

/// One line per message (`package.Name`, with ` list` if JSON shows only its items), then its fields: a tab, number, name,
/// type, and marks: `r` repeated, `m` map, `i` inline, `e` keeps what is empty.
pub fn messages(sources: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = String::new();
    for package in PACKAGES {
        let directory = sources.join("k8s.io").join(package);
        let proto = directory.join("generated.proto");
        let proto = fs::read_to_string(&proto).with_context(|| format!("cannot read {}", proto.display()))?;
        let (fields, structs) = go_fields(&directory)?;
        write_package(&mut text, &proto, &fields, &structs)?;
    }
    Ok(text.into_bytes())
}

fn write_package(text: &mut String, proto: &str, go: &GoFields, structs: &BTreeSet<String>) -> anyhow::Result<()> {
    let package = proto.lines().find_map(|line| line.strip_prefix("package ")?.strip_suffix(';'));
    let package = package.context("a .proto without a package")?;
    let mut message = None;
    for line in proto.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some(name) = line.strip_prefix("message ").and_then(|rest| rest.split_whitespace().next()) {
            let list = if structs.contains(name) { "" } else { " list" };
            writeln!(text, "{package}.{name}{list}")?;
            message = Some(name.to_owned());
        } else if line == "}" {
            message = None;
        } else if let Some(message) = &message
            && let Some(field) = proto_field(line)
        {
            write_field(text, package, message, &field, go)?;
        }
    }
    Ok(())
}

struct ProtoField<'a> {
    number: u32,
    name: &'a str,
    kind: &'a str,
    repeated: bool,
    map: bool,
}

/// `optional TYPE NAME = NUMBER;`, `repeated …`, or `map<string, TYPE> NAME = NUMBER;`
fn proto_field(line: &str) -> Option<ProtoField<'_>> {
    let (left, number) = line.strip_suffix(';')?.split_once(" = ")?;
    let number = number.split_whitespace().next()?.parse().ok()?;
    if let Some(rest) = left.strip_prefix("map<") {
        let (kinds, name) = rest.split_once("> ")?;
        let (_key, kind) = kinds.split_once(", ")?;
        return Some(ProtoField { number, name, kind, repeated: false, map: true });
    }
    let mut words = left.split_whitespace();
    let (label, kind, name) = (words.next()?, words.next()?, words.next()?);
    Some(ProtoField { number, name, kind, repeated: label == "repeated", map: false })
}

fn write_field(
    text: &mut String,
    package: &str,
    message: &str,
    field: &ProtoField<'_>,
    go: &GoFields,
) -> anyhow::Result<()> {
    let kind = match field.kind {
        "string" | "bytes" | "bool" | "double" => field.kind.to_owned(),
        "int32" | "int64" | "uint32" | "uint64" => "int".to_owned(),
        qualified if qualified.starts_with('.') => qualified.trim_start_matches('.').to_owned(),
        local => format!("{package}.{local}"),
    };
    let found = go.get(&(message.to_owned(), field.number));
    let mut marks = String::new();
    for (mark, set) in [
        ('r', field.repeated),
        ('m', field.map),
        ('i', found.is_some_and(|field| field.inline)),
        ('e', found.is_some_and(|field| field.keeps_empty)),
    ] {
        if set {
            marks.push(mark);
        }
    }
    let name = found.map(|field| field.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(field.name);
    writeln!(text, "\t{} {name} {kind} {marks}", field.number)?;
    Ok(())
}

/// What the Go files of a package say of fields with a number, and which structs there are.
fn go_fields(directory: &Path) -> anyhow::Result<(GoFields, BTreeSet<String>)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "go"));
    files.sort();
    let (mut fields, mut structs) = (GoFields::new(), BTreeSet::new());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut open = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) {
                structs.insert(name.to_owned());
                open = Some(name.to_owned());
            } else if line == "}" {
                open = None;
            } else if let Some(name) = &open
                && let Some((number, field)) = go_field(line)
            {
                fields.insert((name.clone(), number), field);
            }
        }
    }
    Ok((fields, structs))
}

/// A field with `json` and `protobuf` tags.
fn go_field(line: &str) -> Option<(u32, GoField)> {
    let (declared, tags) = line.trim().split_once('`')?;
    let tag = |name: &str| tags.split_once(&format!("{name}:\""))?.1.split('"').next();
    let number = tag("protobuf")?.split(',').nth(1)?.parse().ok()?;
    let mut json = tag("json")?.split(',');
    let name = json.next()?.to_owned();
    let options: Vec<&str> = json.collect();
    let pointer = declared.split_whitespace().nth(1).is_some_and(|kind| kind.starts_with('*'));
    let keeps_empty = pointer || !options.contains(&"omitempty");
    Some((number, GoField { name, inline: options.contains(&"inline"), keeps_empty }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_both_languages() {
        let field = proto_field("map<string, bytes> binaryData = 3;").unwrap();
        assert_eq!((field.number, field.name, field.kind, field.map), (3, "binaryData", "bytes", true));
        let field = proto_field("repeated .k8s.io.api.core.v1.EnvVar env = 7;").unwrap();
        assert_eq!((field.number, field.kind, field.repeated), (7, ".k8s.io.api.core.v1.EnvVar", true));
        let table = [
            (
                "\tHostPort int32 `json:\"hostPort,omitempty\" protobuf:\"varint,2,opt,name=hostPort\"`",
                (2, "hostPort", false, false),
            ),
            (
                "\tRunAsUser *int64 `json:\"runAsUser,omitempty\" protobuf:\"varint,4,opt,name=runAsUser\"`",
                (4, "runAsUser", false, true),
            ),
            (
                "\tRestartCount int32 `json:\"restartCount\" protobuf:\"varint,5,opt,name=restartCount\"`",
                (5, "restartCount", false, true),
            ),
            ("\tVolumeSource `json:\",inline\" protobuf:\"bytes,2,opt,name=volumeSource\"`", (2, "", true, true)),
        ];
        for (line, (number, name, inline, keeps_empty)) in table {
            let (found, field) = go_field(line).unwrap();
            assert_eq!(
                (found, field.name.as_str(), field.inline, field.keeps_empty),
                (number, name, inline, keeps_empty)
            );
        }
    }
}
