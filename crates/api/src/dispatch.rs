//! From a request to the verb that answers it.

use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use steps::{Scope, Within as _, step};

use crate::access::reviews;
use crate::access::{Identity, Peer, authenticate, authorize, impersonate};
use crate::context::{Call, Context};
use crate::http::body;
use crate::http::query::Query;
use crate::http::reply::{self, Reply, whole};
use crate::http::status::ApiError;
use crate::kinds::{Kind, NODE};
use crate::render::encode;
use crate::route::{Route, Target};
use crate::verbs::{self, Part};
use crate::{backup, discovery, health, images, metrics, openapi, proxy, shutdown, streams, timeline};

/// Answers one request; what goes wrong becomes a Status.
pub async fn answer(context: Arc<Context>, peer: &Peer, request: Request<Incoming>) -> Reply {
    let upgrade = request.headers().contains_key(http::header::UPGRADE);
    let route = Route::parse(request.uri().path());
    let admitted = admit(&context, peer, &route, &request).and_then(|identity| {
        let place = context.limits.take(&identity, &route, &request)?;
        Ok((identity, place))
    });
    let answered = match admitted {
        Ok((identity, place)) => dispatch(context, &identity, route, request).await.map(|reply| place.hold(reply)),
        Err(error) => Err(error),
    };
    let mut reply = match answered {
        Ok(reply) => reply,
        Err(error) => reply::error(&error),
    };
    // A refused upgrade ends the connection: nothing that the client sends next may be taken for a request
    // (CVE-2018-1002105).
    if upgrade && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    reply
}

/// Finds out who asks, and whether they may.
fn admit(context: &Context, peer: &Peer, route: &Route, request: &Request<Incoming>) -> Result<Identity, ApiError> {
    let identity = authenticate(context, peer, request.headers())?;
    let identity = impersonate(&context.store, identity, request.headers())?;
    authorize(&context.store, &identity, route, request)?;
    Ok(identity)
}

async fn dispatch(
    context: Arc<Context>,
    identity: &Identity,
    route: Route,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let read_only = |reply: Result<Reply, ApiError>| {
        if request.method() == Method::GET { reply } else { Err(ApiError::method_not_allowed()) }
    };
    match route {
        Route::Version => read_only(Ok(version(&context))),
        Route::Paths => read_only(Ok(discovery::paths())),
        Route::Health(door, check) => {
            let query = Query::parse(request.uri().query());
            read_only(health::answer(&context, door, check.as_deref(), &query).await)
        }
        Route::CoreVersions => read_only(Ok(discovery::core_versions(request.headers()))),
        Route::Groups => read_only(Ok(discovery::groups(request.headers()))),
        Route::Group(group) => read_only(discovery::group(&group)),
        Route::Resources { group, version } => read_only(discovery::resources(&group, &version)),
        Route::OpenApi => read_only(Ok(openapi::index(request.headers()))),
        Route::OpenApiOf(path) => {
            read_only(openapi::document(&path, &Query::parse(request.uri().query()), request.headers()))
        }
        Route::Review(review) if request.method() == Method::POST => {
            let headers = request.headers().clone();
            let bytes = body::read(request.into_body()).await?;
            reviews::answer(&context, identity, review, &headers, &bytes)
        }
        Route::Review(_) => Err(ApiError::method_not_allowed()),
        Route::Metrics(door) => {
            let query = Query::parse(request.uri().query());
            read_only(metrics::answer(&context, &door, &query).await)
        }
        Route::MetricsPage => read_only(Ok(metrics::page(&context))),
        Route::ResourceMetricsPage => read_only(Ok(metrics::resource_page(&context).await)),
        Route::Images(door) => images::answer(&context, door, request).await,
        Route::Shutdown => shutdown::answer(&context, request.method()).await,
        Route::Backup => backup::answer(&context, identity, request.method()).await,
        Route::Timeline { pod_namespace, name } => read_only(timeline::answer(&context, &pod_namespace, &name).await),
        Route::Steps { pod_namespace, name } => read_only(timeline::steps(&context, &pod_namespace, &name)),
        Route::Objects { kind, pod_namespace, target } => objects(context, kind, pod_namespace, target, request).await,
        Route::NoSuchResource => Err(ApiError::no_such_resource()),
        Route::Unknown => Ok(whole(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")),
    }
}

async fn objects(
    context: Arc<Context>,
    kind: &'static Kind,
    pod_namespace: Option<String>,
    target: Target,
    mut request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let query = Query::parse(request.uri().query());
    let headers = request.headers().clone();
    let call = Call { context, kind, pod_namespace, query, headers, twice: OnceLock::new() };
    match target {
        Target::Collection => collection(&call, request).await,
        Target::Object(name) => object(&call, &name, Part::Main, request).await,
        Target::Subresource(name, part) if kind.has_subresource(&part) => match part.as_str() {
            "status" | "resize" | "ephemeralcontainers" if request.method() == Method::DELETE => {
                Err(ApiError::method_not_allowed())
            }
            "resize" => object(&call, &name, Part::Resize, request).await,
            "status" => object(&call, &name, Part::Status, request).await,
            "ephemeralcontainers" => object(&call, &name, Part::EphemeralContainers, request).await,
            "scale" => verbs::scale(&call, &name, request).await,
            "eviction" | "binding" | "token" => action(&call, &name, &part, request).await,
            "proxy" if kind.resource == NODE.resource => {
                let path = request.uri().path();
                let below = path.split_once("/proxy").map_or("", |(_, below)| below);
                proxy::node::answer(&call.context, &name, below, request.method()).await
            }
            "proxy" => proxy::proxy(&call, &name, request).await,
            _ => streams::answer(&call, &name, &part, &mut request),
        },
        Target::Subresource(..) => Err(ApiError::no_such_resource()),
    }
}

async fn collection(call: &Call, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let placed = call.kind.namespaced == call.pod_namespace.is_some();
    match *request.method() {
        Method::GET if call.query.flag("watch") => verbs::watch(call),
        Method::GET => verbs::list(call),
        Method::POST if placed => {
            let create = async {
                let bytes = body::read(request.into_body()).within(step!("read the request")).await?;
                let object = step!("decode the object").in_scope(|| call.decode(&bytes))?;
                verbs::create(call, object).await
            };
            create.within(Scope::of_new_pod(&call.context.steps)).await
        }
        Method::DELETE if placed => {
            let options = verbs::DeleteOptions::parse(call, &body::read(request.into_body()).await?)?;
            verbs::delete_collection(call, &options).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// What is done to an object by sending another one.
async fn action(call: &Call, name: &str, part: &str, request: Request<Incoming>) -> Result<Reply, ApiError> {
    if request.method() != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let bytes = body::read(request.into_body()).await?;
    match part {
        "binding" => verbs::bind(call, name, &bytes).await,
        "token" => verbs::request_token(call, name, &bytes),
        _ => verbs::evict(call, name, &bytes).await,
    }
}

async fn object(call: &Call, name: &str, part: Part, request: Request<Incoming>) -> Result<Reply, ApiError> {
    match *request.method() {
        Method::GET => verbs::get(call, name),
        Method::PUT => {
            let object = call.decode(&body::read(request.into_body()).await?)?;
            verbs::update(call, name, part, object).await
        }
        Method::PATCH => verbs::patch(call, name, part, &body::read(request.into_body()).await?).await,
        Method::DELETE => {
            let delete = async {
                let bytes = body::read(request.into_body()).within(step!("read the request")).await?;
                verbs::delete(call, name, &verbs::DeleteOptions::parse(call, &bytes)?).await
            };
            delete.within(Scope::of_new_pod(&call.context.steps)).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Clients parse `gitVersion` as the version of Kubernetes whose API this is.
fn version(context: &Context) -> Reply {
    reply::json(encode(&json!({
        "major": "1", "minor": "37", "gitVersion": format!("v1.37.0+monopod-{}", context.version),
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })))
}
