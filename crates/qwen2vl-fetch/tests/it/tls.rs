//! Encryption: a server with a certificate that only this machine's own list knows, as behind a company's proxy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use qwen2vl_fetch::{Error, Trouble};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::child::child;
use crate::server::{Resource, Server};
use crate::{FULL, Place, assert_is_annotator, fetch, model_zip};

/// Puts encryption before a plain server: one request and its answer a connection. The port.
fn encrypt(plain_port: u16, config: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut outside in listener.incoming().flatten() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that does not trust the certificate ends here.
            relay(&mut Stream::new(&mut connection, &mut outside), plain_port).ok();
            connection.send_close_notify();
            connection.write_tls(&mut outside).ok();
        }
    });
    port
}

fn relay(outside: &mut (impl Read + Write), plain_port: u16) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        outside.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut inside = TcpStream::connect(("127.0.0.1", plain_port))?;
    inside.write_all(&head)?;
    std::io::copy(&mut inside, outside)?;
    outside.flush()
}

#[test]
fn the_machines_own_certificates_are_trusted_and_others_are_not() {
    let resource = Resource::new(model_zip(1), "v1");
    let server = Server::start(move |seen, out| {
        // Interrupted once, so that a second connection is made.
        resource.send_until(seen, out, if seen.nth == 0 { 300_000 } else { usize::MAX });
    });
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let url = format!("https://localhost:{}", encrypt(server.port, Arc::new(config)));

    let place = Place::new();
    let error = fetch(place.options(&url), FULL).unwrap_err();
    assert!(matches!(error, Error::Download { trouble: Trouble::Tls { .. }, .. }), "{error:?}");
    assert!(server.seen().is_empty());

    let list = place.dir.path().join("own.pem");
    std::fs::write(&list, cert.pem()).unwrap();
    let status = child(&place, &url).env("SSL_CERT_FILE", &list).env_remove("SSL_CERT_DIR").status().unwrap();
    assert!(status.success());
    assert_is_annotator(&place.model(), 1);
    assert_eq!(server.seen().len(), 2);
}
