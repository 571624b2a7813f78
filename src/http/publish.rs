//! `POST /v1/publish`: says something to everybody who listens to a channel.
//!
//! Called by the route table. The body is the message, byte by byte; whoever is subscribed on any instance, and
//! any other program that is subscribed in Redis, hears it. Nobody keeps it.

use super::Service;
use super::auth::{Caller, forbidden, not_published};
use super::body::{collect_small, drain};
use super::parameters::{Parameters, refuse};
use super::problem::Problem;
use super::stream::failed;
use crate::live::channel::Channel;
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

/// Bytes of a message: more is better fetched by those who want it.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What was handed to whoever listens.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    channel: String,
    /// Length of the message.
    bytes: usize,
}

#[utoipa::path(post, path = "/v1/publish", tag = "live",
    params(("channel" = String, Query, example = "my channel", description = "Any name but those that begin with live: or closed:")),
    request_body(content = String, content_type = "application/octet-stream", description = "The message, up to 64 KiB"),
    responses((status = 200, description = "It was handed to whoever listens", body = Published)),
)]
pub(super) async fn publish(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Published>, Problem> {
    let parameters = Parameters::read(&raw, &["channel"], "")?;
    let name = parameters.one("channel").ok_or_else(|| refuse("channel", "it is missing: write ?channel=NAME"))?;
    let channel = Channel::published(name).map_err(|error| refuse("channel", &error.to_string()))?;
    if !caller.may_publish(name) {
        drain(&headers, &mut body.into_data_stream()).await;
        return Err(forbidden(not_published(name)));
    }
    let message = collect_small(&headers, body, MAX_MESSAGE_BYTES).await?;
    let bytes = message.len();
    service.hub.publish(&channel, message).await.map_err(|error| failed(&error))?;
    Ok(Json(Published { channel: name.to_owned(), bytes }))
}
