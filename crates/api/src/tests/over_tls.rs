//! The TLS door: who gets in, and as whom.

use std::net::SocketAddr;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::server::TlsDoor;
use crate::standing::keep_standing_objects;
use crate::tls::{Authority, ServingCertificate};

struct Door {
    server: TestServer,
    authority: Arc<Authority>,
    address: SocketAddr,
}

/// A user: name and group.
type User = Option<(&'static str, Option<&'static str>)>;
const ADMIN: User = Some(("root", Some("system:masters")));
const JANE: User = Some(("jane", Some("dev")));
const NOBODY: User = None;

impl Door {
    async fn open() -> Self {
        Self::open_limited(Limits::default(), usize::MAX).await
    }

    /// With other limits, and for so many connections.
    async fn open_limited(limits: Limits, connections: usize) -> Self {
        let server = TestServer::start_limited(limits).await;
        let authority = Arc::new(Authority::open(&server.path("authority")).unwrap());
        let names = vec!["localhost".to_owned()];
        let certificate = Arc::new(ServingCertificate::new(Arc::clone(&authority), names, []));
        let mut door = TlsDoor::open("127.0.0.1:0".parse().unwrap(), certificate).await.unwrap();
        door.connections = connections.min(door.connections);
        let (address, context) = (door.address(), Arc::clone(&server.context));
        tokio::spawn(async move { door.accept(context).await.unwrap() });
        Self { server, authority, address }
    }

    fn client(&self, authority: &Authority, user: User) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let Some((name, group)) = user else { return builder.with_no_client_auth() };
        let signed = authority.sign_client(name, group, "2100-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(signed.key_pem.as_bytes()).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    }

    async fn ask(&self, user: User, name: &'static str, request: Request<Full<Bytes>>) -> std::io::Result<Answer> {
        self.ask_with(self.client(&self.authority, user), name, request).await
    }

    async fn ask_with(
        &self,
        client: ClientConfig,
        name: &'static str,
        request: Request<Full<Bytes>>,
    ) -> std::io::Result<Answer> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        Ok(Answer { code: head.status, headers: head.headers, body })
    }

    async fn get(&self, user: User, path: &str) -> Answer {
        self.ask(user, "localhost", request(Method::GET, path, "", Bytes::new())).await.unwrap()
    }
}

#[tokio::test]
async fn a_certificate_says_who_asks() {
    let door = Door::open().await;
    let namespaces = "/api/v1/namespaces";
    let table = [
        (ADMIN, namespaces, 200),
        (ADMIN, "/monopod/v1/images", 200),
        (JANE, namespaces, 403),
        (JANE, "/monopod/v1/images", 403),
        (JANE, "/api", 200),
        (JANE, "/apis", 200),
        (JANE, "/api/v1", 200),
        (JANE, "/version", 200),
        (NOBODY, namespaces, 401),
        (NOBODY, "/api", 401),
        (NOBODY, "/nothing", 401),
        (NOBODY, "/version", 200),
        (NOBODY, "/healthz", 200),
        (NOBODY, "/livez", 200),
        (NOBODY, "/readyz/", 200),
    ];
    for (user, path, code) in table {
        assert_eq!(door.get(user, path).await.code.as_u16(), code, "{user:?} {path}");
    }
    let status = door.get(NOBODY, namespaces).await.json();
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!("Status"), &json!("Unauthorized"), &json!(401))
    );
    let refused = door.get(JANE, namespaces).await.json();
    assert_eq!((&refused["reason"], &refused["code"]), (&json!("Forbidden"), &json!(403)));
    assert!(refused["message"].as_str().unwrap().contains("\"jane\""), "{refused}");
}

#[tokio::test]
async fn writes_need_rights_even_on_public_paths() {
    let door = Door::open().await;
    for (user, code) in [(NOBODY, 401), (JANE, 403), (ADMIN, 405)] {
        let answer = door.ask(user, "localhost", request(Method::POST, "/version", "", "x")).await.unwrap();
        assert_eq!(answer.code.as_u16(), code, "{user:?}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_issued_is_refused() {
    let door = Door::open().await;
    let mut wanted = request(Method::GET, "/version", "", Bytes::new());
    wanted.headers_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    assert_eq!(door.ask(NOBODY, "localhost", wanted).await.unwrap().code, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_becomes_another_by_a_header() {
    let door = Door::open().await;
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = async |user: User, method: Method, path: &str, headers: &[(&'static str, &str)]| {
        let mut wanted = request(method, path, "application/json", "{}");
        for (name, value) in headers {
            wanted.headers_mut().append(*name, value.parse().unwrap());
        }
        door.ask(user, "localhost", wanted).await.unwrap()
    };
    let who = async |user: User, headers: &[(&'static str, &str)]| {
        let answer = ask(user, Method::POST, reviews, headers).await;
        (answer.code.as_u16(), answer.json()["status"]["userInfo"].clone(), answer.message())
    };
    // Who may be anybody is judged as the one that they name.
    let (code, info, _) = who(ADMIN, &[("impersonate-user", "ann"), ("impersonate-group", "dev")]).await;
    assert_eq!((code, info), (201, json!({"username": "ann", "groups": ["dev", "system:authenticated"]})));
    let account = "system:serviceaccount:default:robot";
    let (_, info, _) = who(ADMIN, &[("impersonate-user", account), ("impersonate-extra-a%2fb", "1")]).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(info, json!({"username": account, "groups": groups, "extra": {"a/b": ["1"]}}));
    let refused = ask(ADMIN, Method::GET, "/api/v1/namespaces", &[("impersonate-user", "ann")]).await;
    assert!(refused.message().contains("User \"ann\" cannot list resource \"namespaces\""), "{}", refused.message());
    assert_eq!(who(ADMIN, &[("impersonate-group", "dev")]).await.0, 400);
    // Others need a right for each part of it.
    let (code, _, message) = who(JANE, &[("impersonate-user", "ann")]).await;
    assert_eq!(code, 403);
    assert!(message.contains("User \"jane\" cannot impersonate resource \"users\""), "{message}");
    let rules =
        json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    make(&door, &format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "ann"}, "rules": rules})).await;
    let subjects = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ann"});
    let binding = json!({"metadata": {"name": "ann"}, "subjects": subjects, "roleRef": role});
    make(&door, &format!("{rbac}/clusterrolebindings"), &binding).await;
    assert_eq!(who(JANE, &[("impersonate-user", "ann")]).await.0, 201);
    assert_eq!(who(JANE, &[("impersonate-user", "bob")]).await.0, 403);
    let masters = [("impersonate-user", "ann"), ("impersonate-group", "system:masters")];
    assert_eq!(who(JANE, &masters).await.0, 403);
    assert_eq!(who(NOBODY, &[("impersonate-user", "ann")]).await.0, 401);
}

#[tokio::test]
async fn the_servers_certificate_names_it_and_the_address_that_was_reached() {
    let door = Door::open().await;
    let ask = async |name| {
        let wanted = request(Method::GET, "/healthz", "", Bytes::new());
        door.ask(NOBODY, name, wanted).await.map(|answer| answer.code)
    };
    assert_eq!(ask("localhost").await.unwrap(), StatusCode::OK);
    assert_eq!(ask("127.0.0.1").await.unwrap(), StatusCode::OK);
    assert!(ask("example.org").await.is_err());
    assert!(ask("10.0.0.1").await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let door = Door::open().await;
    let other = Authority::open(&door.server.path("other")).unwrap();
    let wanted = request(Method::GET, "/version", "", Bytes::new());
    assert!(door.ask_with(door.client(&other, ADMIN), "localhost", wanted).await.is_err());
}

#[tokio::test]
async fn the_authority_is_kept_and_its_key_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("authority");
    let first = Authority::open(&home).unwrap();
    let again = Authority::open(&home).unwrap();
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    for name in ["ca.key", "ca.crt"] {
        assert_eq!(std::fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A crash between the two files.
    std::fs::remove_file(home.join("ca.crt")).unwrap();
    assert!(Authority::open(&home).is_ok());
    std::fs::rename(home.join("ca.key"), directory.path().join("ca.key")).unwrap();
    let error = Authority::open(&home).err().unwrap().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
    std::fs::write(home.join("ca.key"), "nonsense").unwrap();
    assert!(Authority::open(&home).err().unwrap().to_string().contains("ca.key is not a key"));
    std::fs::remove_dir_all(directory.path().join("authority")).unwrap();
    Authority::open(&home).unwrap();
    std::fs::rename(directory.path().join("ca.key"), home.join("ca.key")).unwrap();
    assert!(Authority::open(&home).err().unwrap().to_string().contains("does not belong to the key"));
}

/// Makes objects as the administrator.
async fn make(door: &Door, path: &str, object: &Value) {
    let answer = door.server.post(path, object).await;
    assert_eq!(answer.code, StatusCode::CREATED, "{:?}", answer.body);
}

#[tokio::test]
async fn roles_say_what_others_may() {
    let door = Door::open().await;
    keep_standing_objects(&door.server.context).await.unwrap();
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let to_jane = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role_ref =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let binding =
        json!({"metadata": {"name": "jane"}, "subjects": to_jane, "roleRef": role_ref("ClusterRole", "view")});
    make(&door, &format!("{group}/namespaces/default/rolebindings"), &binding).await;
    make(&door, MAPS, &config_map("a")).await;
    let other = "/api/v1/namespaces/other";
    let ask = async |method: Method, path: &str, body: &Value| {
        let wanted = request(method, path, "application/json", body.to_string());
        let answer = door.ask(JANE, "localhost", wanted).await.unwrap();
        (answer.code.as_u16(), answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let get = async |path: &str| ask(Method::GET, path, &Value::Null).await;
    assert_eq!(get(&format!("{MAPS}/a")).await.0, 200);
    assert_eq!(get(MAPS).await.0, 200);
    let refused = [
        (
            Method::GET,
            "/api/v1/namespaces/default/secrets",
            "secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"",
        ),
        (
            Method::GET,
            "/api/v1/namespaces/other/configmaps/a",
            "configmaps \"a\" is forbidden: User \"jane\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"other\"",
        ),
        (
            Method::GET,
            "/api/v1/configmaps?watch=true",
            "configmaps is forbidden: User \"jane\" cannot watch resource \"configmaps\" in API group \"\" at the cluster scope",
        ),
        (
            Method::DELETE,
            "/api/v1/namespaces/default/configmaps/a",
            "configmaps \"a\" is forbidden: User \"jane\" cannot delete resource \"configmaps\" in API group \"\" in the namespace \"default\"",
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/pods/p/exec",
            "pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API group \"\" in the namespace \"default\"",
        ),
        (Method::GET, "/monopod/v1/images", "forbidden: User \"jane\" cannot get path \"/monopod/v1/images\""),
    ];
    for (method, path, message) in refused {
        assert_eq!(ask(method, path, &Value::Null).await, (403, message.to_owned()), "{path}");
    }
    // Who may write bindings gives no rights by it, unless they may bind.
    let rules =
        json!([{"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"]}]);
    make(&door, &format!("{group}/clusterroles"), &json!({"metadata": {"name": "writer"}, "rules": rules})).await;
    let binding =
        json!({"metadata": {"name": "writes"}, "subjects": to_jane, "roleRef": role_ref("ClusterRole", "writer")});
    make(&door, &format!("{group}/namespaces/default/rolebindings"), &binding).await;
    let grab =
        json!({"metadata": {"name": "grab"}, "subjects": to_jane, "roleRef": role_ref("ClusterRole", "cluster-admin")});
    let (code, message) = ask(Method::POST, &format!("{group}/namespaces/default/rolebindings"), &grab).await;
    assert!(code == 403 && message.contains("cannot bind resource \"clusterroles\""), "{message}");
    assert_eq!(get(&format!("{other}/pods")).await.0, 403);
}

#[tokio::test]
async fn everybody_may_ask_about_themselves() {
    let door = Door::open().await;
    keep_standing_objects(&door.server.context).await.unwrap();
    let ask = async |user: User, place: &str, spec: &Value| {
        let wanted = request(Method::POST, place, "application/json", json!({"spec": spec}).to_string());
        door.ask(user, "localhost", wanted).await.unwrap()
    };
    let access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let question = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}});
    for (user, want) in [(ADMIN, true), (JANE, false)] {
        let answer = ask(user, access, &question).await;
        assert_eq!((answer.code, &answer.json()["status"]["allowed"]), (StatusCode::CREATED, &json!(want)));
    }
    let discovery = json!({"nonResourceAttributes": {"verb": "get", "path": "/apis/x"}});
    assert_eq!(ask(JANE, access, &discovery).await.json()["status"]["allowed"], json!(true));
    let who = ask(JANE, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &Value::Null).await.json();
    assert_eq!(who["status"]["userInfo"], json!({"username": "jane", "groups": ["dev", "system:authenticated"]}));
    let rules =
        ask(ADMIN, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &json!({"namespace": "default"})).await;
    assert_eq!(rules.json()["status"]["resourceRules"][0]["verbs"], json!(["*"]));
    // About others, only who may.
    let others = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let mut about = question.clone();
    about["groups"] = json!(["system:masters"]);
    assert_eq!(ask(JANE, others, &about).await.code, StatusCode::FORBIDDEN);
    assert_eq!(ask(ADMIN, others, &about).await.json()["status"]["allowed"], json!(true));
    let token = ask(ADMIN, "/apis/authentication.k8s.io/v1/tokenreviews", &json!({"token": "nonsense"})).await.json();
    assert_eq!(token["status"]["authenticated"], json!(false));
    assert_eq!(ask(NOBODY, access, &question).await.code, StatusCode::UNAUTHORIZED);
    let empty = ask(ADMIN, access, &json!({})).await;
    assert_eq!(empty.code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_client_whom_there_is_no_place_for_is_told_so() {
    let door = Door::open_limited(Limits::default(), 1).await;
    let busy = TcpStream::connect(door.address).await.unwrap();
    let refused = loop {
        // The first one takes its place as soon as it is accepted.
        let answer = door.get(ADMIN, "/version").await;
        if answer.code != StatusCode::OK {
            break answer;
        }
    };
    assert_eq!(refused.code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["connection"], "close");
    let status = refused.json();
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(status["message"], "too many connections are open, please try again later");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    drop(busy);
    let again = async {
        while door.get(ADMIN, "/version").await.code != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

/// Jane may read ConfigMaps.
async fn let_jane_read(door: &Door) {
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    make(door, &format!("{rbac}/roles"), &json!({"metadata": {"name": "reader"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    });
    make(door, &format!("{rbac}/rolebindings"), &binding).await;
}

#[tokio::test]
async fn watches_beyond_the_limit_are_refused_until_one_ends() {
    let door = Door::open_limited(Limits::of(8, 1), 64).await;
    let_jane_read(&door).await;
    let watch = format!("{MAPS}?watch=true&timeoutSeconds=1");
    let (one, other) = tokio::join!(door.get(JANE, &watch), door.get(JANE, &watch));
    let (served, refused) = if one.code == StatusCode::OK { (one, other) } else { (other, one) };
    assert_eq!((served.code, refused.code), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(refused.message(), "too many watches and followed logs are under way, please try again later");
    assert_eq!(refused.headers["retry-after"], "1");
    // The one that was served has ended with its time, and with it its place.
    assert_eq!(door.get(JANE, &watch).await.code, StatusCode::OK);
}

#[tokio::test]
async fn without_a_place_only_the_administrator_is_served() {
    let door = Door::open_limited(Limits::of(0, 0), 64).await;
    let_jane_read(&door).await;
    let refused = door.get(JANE, MAPS).await;
    assert_eq!(refused.code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.message(), "too many requests are under way, please try again later");
    assert_eq!(door.get(ADMIN, MAPS).await.code, StatusCode::OK);
}
