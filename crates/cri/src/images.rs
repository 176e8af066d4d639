//! Images: list, status, pull, remove, and the disk they take.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::{Credentials, Image, RemoveImageError};
use spec::Timestamp;
use spec::image_ref::ImageReference;
use tonic::Status;

use crate::errors::{self, chain, invalid, unsupported};
use crate::pod_sandboxes::nanos;
use crate::proto::{self, AuthConfig, ImageSpec, Int64Value};
use crate::service::{Cri, finish};
use crate::stats::filesystem;

impl Cri {
    pub(crate) fn list_images(&self, filter: Option<proto::ImageFilter>) -> Vec<proto::Image> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image).filter(|name| !name.is_empty());
        match wanted {
            Some(name) => self.find(&name).iter().map(tell).collect(),
            None => self.0.images.list().iter().map(tell).collect(),
        }
    }

    /// A name that cannot be one names nothing.
    fn find(&self, name: &str) -> Option<Image> {
        self.0.images.resolve(name).ok().flatten()
    }

    /// Nothing for an image that is not here, as the protocol wants it.
    pub(crate) fn image_status(&self, spec: Option<ImageSpec>) -> Result<Option<proto::Image>, Status> {
        let name = name_of(spec)?;
        Ok(self.find(&name).as_ref().map(tell))
    }

    pub(crate) async fn pull(&self, request: proto::PullImageRequest) -> Result<String, Status> {
        let name = name_of(request.image)?;
        let reference: ImageReference = name.parse().map_err(|error| invalid("image.image", chain(&error)))?;
        let given = request.auth.map(credentials).transpose()?.flatten();
        let pull = self.0.images.pull(&reference, given.into_iter().collect());
        let pull = pull.ok_or_else(|| Status::unavailable("no registries are configured"))?;
        // Given up when the caller is: nobody else waits for it.
        match pull.finished().await {
            Ok(image) => Ok(image.id.to_string()),
            Err(error) => Err(Status::unknown(chain(&*error))),
        }
    }

    /// The image, whatever else it is called.
    pub(crate) async fn remove_image(&self, spec: Option<ImageSpec>) -> Result<(), Status> {
        let name = name_of(spec)?;
        let Some(image) = self.find(&name) else { return Ok(()) };
        let images = self.0.images.clone();
        finish(async move {
            match images.remove(image.id.as_str()).await {
                Ok(_) | Err(RemoveImageError::NotFound { .. }) => Ok(()),
                Err(error) => Err(errors::remove_image(&error)),
            }
        })
        .await
    }

    pub(crate) async fn image_fs(&self) -> Result<proto::ImageFsInfoResponse, Status> {
        let now = nanos(Timestamp::now());
        Ok(proto::ImageFsInfoResponse {
            image_filesystems: vec![filesystem(&self.0.config.data_dir.join("images"), now).await?],
            container_filesystems: vec![filesystem(&self.0.config.data_dir.join("containers"), now).await?],
        })
    }
}

fn name_of(spec: Option<ImageSpec>) -> Result<String, Status> {
    let name = spec.map(|spec| spec.image).filter(|name| !name.is_empty());
    name.ok_or_else(|| invalid("image.image", "it is empty"))
}

fn tell(image: &Image) -> proto::Image {
    let user = image.user().split(':').next().unwrap_or_default();
    let uid = user.parse().ok().map(|value| Int64Value { value });
    proto::Image {
        id: image.id.to_string(),
        repo_tags: image.references.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        // An image without a user runs as root.
        uid: if user.is_empty() { Some(Int64Value { value: 0 }) } else { uid },
        spec: None,
        pinned: false,
    }
}

/// What the kubelet has found for the registry; `auth` is docker's form of user and password.
fn credentials(auth: AuthConfig) -> Result<Option<Credentials>, Status> {
    if !auth.registry_token.is_empty() {
        return Err(unsupported("auth.registry_token", "give user and password, or an identity token"));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credentials::IdentityToken(auth.identity_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::Password { username: auth.username, password: auth.password }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let decoded = BASE64_STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    match pair {
        Some((username, password)) => {
            Ok(Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() }))
        }
        // Never with what it says.
        None => Err(invalid("auth.auth", "it is not base64 of user:password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_several_forms() {
        let password = |username: &str, password: &str| Credentials::Password {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let base = AuthConfig::default;
        let encoded = |text: &str| AuthConfig { auth: BASE64_STANDARD.encode(text), ..base() };
        for (auth, want) in [
            (base(), Some(None)),
            (encoded("me:a:b"), Some(Some(password("me", "a:b")))),
            (encoded("nobody"), None),
            (AuthConfig { username: "me".into(), password: "p".into(), ..base() }, Some(Some(password("me", "p")))),
            (AuthConfig { identity_token: "t".into(), ..base() }, Some(Some(Credentials::IdentityToken("t".into())))),
            (AuthConfig { registry_token: "t".into(), ..base() }, None),
        ] {
            assert_eq!(credentials(auth).ok(), want);
        }
    }
}
