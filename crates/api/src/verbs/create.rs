//! create: a new object.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use spec::validation::{FieldError, FieldReason};
use store::{Change, ObjectKey, ObjectValue, StoredObject};

use crate::context::{Call, Context, refuse};
use crate::http::reply::{Reply, warn, whole};
use crate::http::status::ApiError;
use crate::kinds::{NAMESPACE, Removal, Submitted};
use crate::quotas;
use crate::render::encode;
use crate::verbs::admit::{Accepted, admit};
use crate::verbs::metadata::{self, seconds};
use crate::verbs::options::WriteOptions;
use crate::verbs::owners::{Owners, write_owners};
use crate::verbs::update::Part;
use steps::{Within as _, step};

/// How often a generated name is drawn anew when it is taken, as upstream.
const NAME_DRAWS: usize = 8;

/// Stores the object and answers 201.
pub async fn create(call: &Call, object: Value) -> Result<Reply, ApiError> {
    create_owned(call, object, Owners::ByChange).await
}

/// The same with a word about who owns its fields.
pub async fn create_owned(call: &Call, mut object: Value, owners: Owners) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let options = WriteOptions::parse(&call.query)?;
    metadata::check_type(call, &mut object)?;
    metadata::check_namespace(call, &mut object)?;
    complete_metadata(call, &mut object)?;
    let generated = metadata::text(&object, "name").is_empty();
    let _turn = call.turn().await;
    let mut draws = 0;
    loop {
        draws += 1;
        // Only a name that is drawn may have to be drawn again.
        let mut candidate = if generated { object.clone() } else { object.take() };
        let name = name_of(call, &mut candidate)?;
        check_namespace_accepts(call, &name)?;
        let admitted = step!("admit the object").in_scope(|| admit(call, candidate, None, Part::Main, options.unknown));
        let Accepted { object: mut admitted, submitted, pod, warnings } = admitted?;
        if call.kind.resource == "pods" {
            if !options.dry_run {
                take_prepared_uid(call, &mut admitted)?;
            }
            steps::name_pod(metadata::text(&admitted, "uid"));
        }
        step!("note its owners").in_scope(|| note_owners(call, &mut admitted, submitted, owners.clone()))?;
        let stored = if options.dry_run {
            imagine(call, &name, admitted)
        } else {
            let uid = metadata::text(&admitted, "uid");
            let expected = pod.and_then(|pod| call.context.agent.expect(uid, pod));
            let storing = store(call, &name, admitted).within(step!("store the object"));
            let signing = async {
                if let Some(expected) = &expected {
                    call.context.agent.sign_tokens(expected);
                }
            };
            // In this order: the store's thread has what it needs, and this one nothing to do.
            tokio::join!(biased; storing, signing).0
        };
        let (value, json) = match stored {
            Ok(stored) => stored,
            Err(error) if generated && draws < NAME_DRAWS && error.code == StatusCode::CONFLICT => continue,
            Err(error) => return Err(error),
        };
        let body = renderer.object(&value, &json, Context::now());
        let mut reply = whole(StatusCode::CREATED, renderer.content_type(), body);
        warn(&mut reply, &warnings);
        return Ok(reply);
    }
}

/// Gives a Pod the UID of one for which something was made ahead, if there is any. Each is given once.
fn take_prepared_uid(call: &Call, pod: &mut Value) -> Result<(), ApiError> {
    if let Some(uid) = call.context.agent.prepared_uid(pod) {
        metadata::of(pod)?.insert("uid".to_owned(), json!(uid.as_str()));
    }
    Ok(())
}

/// Nobody owns what only this server has added, such as the volume with a Pod's token.
fn note_owners(call: &Call, object: &mut Value, submitted: Option<Submitted>, owners: Owners) -> Result<(), ApiError> {
    let mut submitted = submitted.filter(|_| matches!(owners, Owners::ByChange));
    if let Some(submitted) = &mut submitted {
        submitted.exchange(object);
    }
    let noted = write_owners(call, Part::Main, None, object, None, owners);
    if let Some(submitted) = &mut submitted {
        submitted.exchange(object);
    }
    noted
}

fn complete_metadata(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if !metadata::text(object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let now = seconds(Context::now());
    let metadata = metadata::of(object)?;
    for field in ["resourceVersion", "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(now));
    if call.kind.counts_generations {
        metadata.insert("generation".to_owned(), json!(1));
    } else {
        metadata.remove("generation");
    }
    Ok(())
}

/// The name, drawn from `generateName` if need be.
fn name_of(call: &Call, object: &mut Value) -> Result<String, ApiError> {
    let name = metadata::text(object, "name").to_owned();
    if !name.is_empty() {
        return Ok(name);
    }
    let prefix = metadata::text(object, "generateName");
    if prefix.is_empty() {
        let error = FieldError {
            field: "metadata.name".to_owned(),
            reason: FieldReason::Required,
            value: Value::Null,
            detail: "name or generateName is required".to_owned(),
        };
        return Err(ApiError::invalid_object(call.kind, "", &[error]));
    }
    let name = generate_name(prefix);
    metadata::of(object)?.insert("name".to_owned(), json!(name));
    Ok(name)
}

/// Five characters that form no words after a prefix of at most 58 (apiserver, `names.SimpleNameGenerator`).
pub fn generate_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut name: String = prefix.chars().take(58).collect();
    name.extend(
        (0..5).filter_map(|_| LETTERS.get(rand::random_range(0..LETTERS.len())).map(|letter| char::from(*letter))),
    );
    name
}

fn check_namespace_accepts(call: &Call, name: &str) -> Result<(), ApiError> {
    let Some(pod_namespace) = call.pod_namespace.as_deref() else { return Ok(()) };
    let found = call.context.store.get(&ObjectKey::cluster(NAMESPACE.resource, pod_namespace));
    let found = found.ok_or_else(|| ApiError::not_found(&NAMESPACE, pod_namespace))?;
    if metadata::text(&found.value, "deletionTimestamp").is_empty() {
        return Ok(());
    }
    Err(ApiError::namespace_terminating(call.kind, name, pod_namespace))
}

async fn store(call: &Call, name: &str, object: Value) -> Result<(ObjectValue, Bytes), ApiError> {
    let (kind, taken) = (call.kind, name.to_owned());
    let decide = move |present: Option<&StoredObject>| match present {
        Some(_) => Err(ApiError::already_exists(kind, &taken)),
        None => Ok((Change::Put(object), ())),
    };
    let written = call.context.store.write(call.key(name), decide).await.map_err(refuse)?;
    let stored = written.object.ok_or_else(|| ApiError::not_found(kind, name))?;
    if kind.removal == Removal::Cascade {
        crate::standing::furnish(&call.context, name).await.map_err(|error| ApiError::internal(&error))?;
    }
    // The namespace may have been emptied and removed between the check and the write; then nobody else would
    // remove this object.
    if let Err(gone) = check_namespace_accepts(call, name) {
        let uid = metadata::text(&stored.value, "uid").to_owned();
        let undo = move |present: Option<&StoredObject>| {
            let ours = present.is_some_and(|present| metadata::text(&present.value, "uid") == uid);
            Ok::<_, ApiError>((if ours { Change::Delete } else { Change::Keep }, ()))
        };
        call.context.store.write(call.key(name), undo).await.map_err(refuse)?;
        return Err(gone);
    }
    quotas::note(call, Part::Main, None, &stored.value).await?;
    Ok((stored.value, stored.json))
}

fn imagine(call: &Call, name: &str, object: Value) -> Result<(ObjectValue, Bytes), ApiError> {
    if call.context.store.get(&call.key(name)).is_some() {
        return Err(ApiError::already_exists(call.kind, name));
    }
    let json = encode(&object);
    Ok((object.into(), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_the_prefix_and_five_letters() {
        let (one, two) = (generate_name("web-"), generate_name("web-"));
        assert!(one.starts_with("web-") && one.len() == 9, "{one}");
        assert_ne!(one, two);
        assert_eq!(generate_name(&"x".repeat(80)).len(), 63);
    }
}
