//! TLS in the service itself: the certificate, its key, and that both can be renewed while it runs.
//!
//! Opened by `app.rs` and looked at by `cli/check.rs`; `server.rs` has it shake hands. TLS 1.2 and 1.3, HTTP/1.1 within. The files are read again at
//! `SIGHUP` and when they have changed; a pair that does not fit together or cannot be read changes nothing and is said in
//! the log. Connections that are open keep what they were made with.

use crate::config::TlsFiles;
use crate::incidents;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as TlsError, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls};

/// How often the files are looked at: who renews a certificate does so days before it has to be.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of an answer that wait in TLS for a client, beside those that wait in the system: one record. With more of them a
/// client that takes its answer slowly would be mistaken for one that takes nothing.
const MAX_WAITING_BYTES: usize = 16 * 1024;

/// A certificate in use.
pub struct Tls {
    files: TlsFiles,
    pair: Arc<Pair>,
    acceptor: TlsAcceptor,
}

/// What new connections are made with.
#[derive(Debug)]
struct Pair(RwLock<Arc<CertifiedKey>>);

impl Pair {
    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Pair {
    /// Whatever name is asked for: the client judges whether it is the right one.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// Which files they were; another stamp is another content.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

impl Tls {
    /// # Errors
    /// Which of the files cannot be used, and why.
    pub fn open(files: &TlsFiles) -> Result<Arc<Self>, String> {
        let pair = Arc::new(Pair(RwLock::new(Arc::new(read(files)?))));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&pair) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(Self { files: files.clone(), pair, acceptor: Arc::new(config).into() }))
    }

    /// Shakes hands, however long the client takes for it.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
        let bounded = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(MAX_WAITING_BYTES));
        self.acceptor.accept_with(stream, bounded).await.map(Box::new)
    }

    /// Whether the certificate is for this name or address.
    pub(in crate::http) fn is_for(&self, name: &str) -> bool {
        let pair = self.pair.get();
        let certificate = pair.cert.first().and_then(|first| ParsedCertificate::try_from(first).ok());
        let name = ServerName::try_from(name.trim_start_matches('[').trim_end_matches(']'));
        certificate.zip(name.ok()).is_some_and(|(certificate, name)| verify_server_name(&certificate, &name).is_ok())
    }

    /// Takes over what becomes of the files; never ready.
    pub async fn keep_up(self: Arc<Self>, mut hangup: Signal) {
        let mut seen = self.stamp().await;
        loop {
            let told = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_PAUSE) => false,
            };
            let stamp = self.stamp().await;
            if told || stamp != seen {
                seen = stamp;
                self.renew().await;
            }
        }
    }

    async fn renew(&self) {
        let files = self.files.clone();
        // A defect in reading them is no reason to renew them no more.
        let read = match incidents::caught("certificate", incidents::blocking(move || read(&files))).await {
            Ok(read) => read.unwrap_or_else(|stopping| Err(stopping.to_string())),
            Err(_) => Err("they cannot be read, by a defect of the service".to_owned()),
        };
        match read {
            Ok(pair) => {
                *self.pair.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!("new connections have the certificate of {} as it is now", self.files.cert.display());
            }
            Err(reason) => tracing::error!("the old certificate stays in use: {reason}"),
        }
    }

    async fn stamp(&self) -> Stamp {
        let files = [self.files.cert.clone(), self.files.key.clone()];
        let look = move || {
            files.map(|path| {
                let found = fs::metadata(path).ok()?;
                Some((found.modified().ok()?, found.len(), found.ino()))
            })
        };
        incidents::blocking(look).await.unwrap_or_default()
    }
}

/// A pair that fits together.
fn read(files: &TlsFiles) -> Result<CertifiedKey, String> {
    let (cert, key) = (&files.cert, &files.key);
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|error| unreadable(cert, &error))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", cert.display()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        PemError::NoItemsFound => {
            format!("{} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", key.display())
        }
        error => unreadable(key, &error),
    })?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => {
            format!("{} is not the key of the certificate in {}", key.display(), cert.display())
        }
        error => format!("{} and {} cannot be used: {error}", cert.display(), key.display()),
    })
}

fn unreadable(path: &Path, error: &PemError) -> String {
    match error {
        PemError::Io(error) => format!("cannot read {}: {error}", path.display()),
        error => format!("{} is not PEM: {error:?}", path.display()),
    }
}
