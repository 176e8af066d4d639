//! The rules of server-side apply, one by one.

use super::*;

const POD: At = At::Struct("Pod");

fn manager(name: &str, applies: bool) -> Manager {
    Manager { name: name.to_owned(), applies, api_version: "v1".to_owned(), subresource: String::new() }
}

/// One object and its owners, changed step by step.
#[derive(Default)]
struct Life {
    object: Option<Value>,
    managers: Value,
}

impl Life {
    fn managers(&self) -> Managers<'_> {
        Managers::parse(&self.managers).unwrap_or_default()
    }

    fn apply(&mut self, name: &str, wanted: &Value, force: bool) -> Result<(), String> {
        let apply = Apply {
            live: self.object.as_ref(),
            wanted,
            at: POD,
            managers: self.managers(),
            manager: &manager(name, true),
            force,
            free: FieldSet::default(),
        };
        match apply.run("t") {
            Ok((object, managers)) => {
                (self.object, self.managers) = (Some(object), managers.to_json());
                Ok(())
            }
            Err(ApplyError::Conflicts(conflicts)) => Err(conflicts.to_string()),
            Err(ApplyError::Element(error)) => Err(error.to_string()),
        }
    }

    fn update(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let old = self.object.clone().unwrap_or_else(nothing);
        let mut new = old.clone();
        change(&mut new);
        self.managers = note_update(&old, &new, POD, self.managers(), &manager(name, false), "t").to_json();
        self.object = Some(new);
    }

    fn fields(&self, name: &str) -> Value {
        let entry = self.managers().0.into_iter().find(|entry| entry.manager.name == name);
        entry.map_or(Value::Null, |entry| entry.fields.to_json())
    }
}

fn labels(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

#[test]
fn what_a_manifest_no_longer_names_goes() {
    let mut life = Life::default();
    life.apply("a", &labels(&json!({"x": "1", "y": "2"})), false).unwrap();
    life.update("b", |object| object["metadata"]["labels"]["z"] = json!("3"));
    life.apply("a", &labels(&json!({"x": "1"})), false).unwrap();
    assert_eq!(life.object.as_ref().unwrap(), &labels(&json!({"x": "1", "z": "3"})));
    assert_eq!(life.fields("a"), json!({"f:metadata": {"f:labels": {"f:x": {}}}}));
    assert_eq!(life.fields("b"), json!({"f:metadata": {"f:labels": {"f:z": {}}}}));
}

#[test]
fn what_another_owns_too_stays() {
    let mut life = Life::default();
    life.apply("a", &labels(&json!({"x": "1", "y": "2"})), false).unwrap();
    life.apply("b", &labels(&json!({"y": "2"})), false).unwrap();
    life.apply("a", &labels(&json!({"x": "1"})), false).unwrap();
    assert_eq!(life.object.as_ref().unwrap(), &labels(&json!({"x": "1", "y": "2"})));
    life.apply("b", &labels(&json!({})), false).unwrap();
    assert_eq!(life.object.as_ref().unwrap(), &labels(&json!({"x": "1"})));
}

#[test]
fn a_changed_value_of_anothers_is_a_conflict_unless_forced() {
    let mut life = Life::default();
    let container = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    life.apply("a", &container("1"), false).unwrap();
    life.update("kubectl-set", |object| object["spec"]["containers"][0]["image"] = json!("2"));
    assert_eq!(
        life.apply("a", &container("1"), false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"kubectl-set\" using v1: .spec.containers[name=\"c\"].image"
    );
    assert_eq!(life.apply("b", &container("2"), false), Ok(()), "the same value is no conflict");
    assert_eq!(
        life.apply("a", &container("3"), false).unwrap_err(),
        "Apply failed with 2 conflicts: conflicts with \"b\":\n- .spec.containers[name=\"c\"].image\n\
         conflicts with \"kubectl-set\" using v1:\n- .spec.containers[name=\"c\"].image"
    );
    life.apply("a", &container("3"), true).unwrap();
    assert_eq!(life.object.as_ref().unwrap(), &container("3"));
    assert_eq!(life.fields("kubectl-set"), Value::Null);
    assert_eq!(life.fields("b")["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"], json!({".": {}, "f:name": {}}));
}

#[test]
fn an_element_goes_with_what_nobody_owns_in_it() {
    let mut life = Life::default();
    life.apply("a", &json!({"spec": {"containers": [{"name": "c"}, {"name": "d"}]}}), false).unwrap();
    // Defaults have no owner.
    for container in life.object.as_mut().unwrap()["spec"]["containers"].as_array_mut().unwrap() {
        container["imagePullPolicy"] = json!("Always");
    }
    life.apply("a", &json!({"spec": {"containers": [{"name": "c"}]}}), false).unwrap();
    let kept = json!([{"name": "c", "imagePullPolicy": "Always"}]);
    assert_eq!(life.object.as_ref().unwrap()["spec"]["containers"], kept);
}

#[test]
fn a_struct_goes_with_its_last_field() {
    let mut life = Life::default();
    life.apply("a", &json!({"spec": {"securityContext": {"runAsUser": 1}, "hostname": "h"}}), false).unwrap();
    life.apply("a", &json!({"spec": {"hostname": "h"}}), false).unwrap();
    assert_eq!(life.object.as_ref().unwrap(), &json!({"spec": {"hostname": "h"}}));
}

#[test]
fn an_object_that_nobody_was_noted_for_has_an_owner_before_the_first_apply() {
    let mut life = Life { object: Some(labels(&json!({"x": "1"}))), ..Life::default() };
    let refused = life.apply("a", &labels(&json!({"x": "2"})), false).unwrap_err();
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .metadata.labels.x"
    );
    life.apply("a", &labels(&json!({"x": "1", "y": "2"})), false).unwrap();
    assert_eq!(life.fields("before-first-apply"), json!({"f:metadata": {"f:labels": {"f:x": {}}}}));
}

#[test]
fn an_update_owns_what_it_adds_and_changes() {
    let mut life = Life::default();
    life.update("maker", |object| {
        *object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}});
    });
    assert_eq!(
        life.fields("maker"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {}}}},
        })
    );
    life.update("other", |object| object["metadata"]["labels"] = json!({"b": "2"}));
    assert_eq!(life.fields("maker")["f:metadata"]["f:labels"], json!({}));
    assert_eq!(life.fields("other"), json!({"f:metadata": {"f:labels": {"f:b": {}}}}));
}

#[test]
fn values_in_common_are_found() {
    let one = labels(&json!({"a": "1", "b": "2", "c": "3"}));
    let other = labels(&json!({"a": "1", "b": "9"}));
    assert_eq!(shared_fields(&one, &other, POD).to_json(), json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
}
