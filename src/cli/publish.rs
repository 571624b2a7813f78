//! `meanwhile publish`: says something to everybody who listens to a channel.
//!
//! A client of a running service: `POST /v1/publish`.

use super::Usage;
use super::client::Client;
use crate::config::ServerArgs;
use std::io::{self, Read};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile publish 'my channel' 'hello'
      Everybody who is subscribed to the channel hears it, on every instance.
  uptime | meanwhile publish status -
      The message comes from standard input.
  curl -N 'http://127.0.0.1:8080/v1/stream?channel=status'
      Listens.";

#[derive(clap::Args)]
pub struct PublishArgs {
    /// The channel; names that begin with live:, closed: or silent: are the service's own
    channel: String,
    /// What to say, up to 64 KiB; - reads it from standard input
    message: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Publishes.
pub fn run(args: &PublishArgs) -> anyhow::Result<()> {
    let message = if args.message == "-" {
        let mut message = Vec::new();
        io::stdin().read_to_end(&mut message)?;
        message
    } else {
        args.message.clone().into_bytes()
    };
    if args.channel.is_empty() {
        return Err(Usage("CHANNEL is empty".to_owned()).into());
    }
    let client = Client::new(&args.server)?;
    Ok(client.send("/v1/publish", &[("channel", &args.channel)], &message)?)
}
