//! Bodies in Kubernetes' protobuf: kubectl's typed writes (`create configmap`, `auth can-i`) and Go clients send them,
//! and do not try JSON when they are refused. Answers are JSON, which every client takes.

mod decode;
mod messages;
mod wire;

use serde_json::Value;
use spec::ordered::object_of;

pub use decode::DecodeError;

use decode::Decoder;
use messages::Messages;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Begins every body (apimachinery, `pkg/runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";

/// Decodes a body into the object that the same client would have sent as JSON.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(DecodeError::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    // runtime.Unknown: typeMeta = 1, raw = 2.
    for field in wire::fields(envelope) {
        match field? {
            (1, wire::Datum::Bytes(meta)) => {
                for field in wire::fields(meta) {
                    match field? {
                        (1, wire::Datum::Bytes(text)) => wire::text(text)?.clone_into(&mut api_version),
                        (2, wire::Datum::Bytes(text)) => wire::text(text)?.clone_into(&mut kind),
                        _ => {}
                    }
                }
            }
            (2, wire::Datum::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let messages = Messages::all();
    let name = messages
        .of_kind(&api_version, &kind)
        .ok_or_else(|| DecodeError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object =
        object_of([("apiVersion".to_owned(), Value::String(api_version)), ("kind".to_owned(), Value::String(kind))]);
    Decoder::new(messages).message_into(&mut object, name, raw)?;
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    #[test]
    fn what_kubectl_sends_is_what_it_would_have_sent_as_json() {
        // `kubectl create configmap cm1 --from-literal=a=b`, as recorded from 1.36.
        let sent = "6b3873000a0f0a0276311209436f6e6669674d6170121d0a130a03636d3112001a0022002a0032003800420012060a01611201621a002200";
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm1"}, "data": {"a": "b"}});
        assert_eq!(decode(&hex(sent)).unwrap(), want);
    }

    #[test]
    fn emptiness_means_what_it_means_in_go() {
        // terminationGracePeriodSeconds (4) is a pointer, so 0 is meant; hostNetwork (11) is none, so false is not.
        let spec = [vec![4 << 3, 0], vec![11 << 3, 0]].concat();
        let pod = decode(&body("v1", "Pod", &field(2, &spec))).unwrap();
        assert_eq!(pod["spec"], json!({"terminationGracePeriodSeconds": 0}));
        let delete = decode(&body("policy/v1", "DeleteOptions", &[1 << 3, 0])).unwrap();
        assert_eq!(delete["gracePeriodSeconds"], json!(0));
    }

    #[test]
    fn inlined_messages_and_special_ones_are_flat() {
        let handler = field(2, &field(2, &[vec![8, 0], vec![2 << 3, 80]].concat()));
        let probe = field(10, &field(1, &handler));
        let limit = [field(1, b"cpu"), field(2, &field(1, b"5m"))].concat();
        let quantity = field(8, &field(1, &limit));
        let container = [field(1, b"c"), probe, quantity].concat();
        let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
        let spec = [field(1, &volume), field(2, &container)].concat();
        let created = field(8, &[vec![8, 0x80, 0xfd, 0xa7, 0xb6, 0x06], vec![16, 0]].concat());
        let pod = decode(&body("v1", "Pod", &[field(1, &created), field(2, &spec)].concat())).unwrap();
        assert_eq!(pod["metadata"]["creationTimestamp"], "2024-08-24T15:38:40Z");
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        let want = json!([{
            "name": "c", "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "5m"}},
        }]);
        assert_eq!(pod["spec"]["containers"], want);
    }

    #[test]
    fn bytes_are_base64_and_lists_in_disguise_are_lists() {
        let entry = [field(1, b"k"), field(2, b"\xff\x00")].concat();
        let secret = decode(&body("v1", "Secret", &field(2, &entry))).unwrap();
        assert_eq!(secret["data"], json!({"k": "/wA="}));
        let entry = [field(1, b"k"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat();
        let review = body("authorization.k8s.io/v1", "SubjectAccessReview", &field(2, &field(5, &entry)));
        assert_eq!(decode(&review).unwrap()["spec"]["extra"], json!({"k": ["a", "b"]}));
    }

    #[test]
    fn nonsense_is_refused() {
        let deep =
            (0..60).fold(Vec::new(), |inner: Vec<u8>, _| if inner.len() < 100 { field(1, &inner) } else { inner });
        let cases: [&[u8]; 7] = [
            b"",
            b"{}",
            b"k8s\0\xff",
            &body("v1", "Nothing", b""),
            &body("v1", "Pod", b"\x0a\xff"),
            &body("v1", "Pod", &field(1, &field(1, b"\xff"))),
            &body("v1", "Pod", b"\x0b"),
        ];
        for case in cases {
            assert!(decode(case).is_err(), "{case:?}");
        }
        assert!(decode(&body("v1", "ConfigMap", &deep)).is_ok(), "unknown depth below known fields is skipped");
    }
}
