//! The user data of a registration, byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollio::{EventKind, EventObject};

fuzz_target!(|input: (i32, bool, u32, u64)| {
    let (fd, is_server, token, data) = input;

    let object = if is_server { EventObject::server(fd) } else { EventObject::client(fd) };
    let packed = object.with_token(token).to_user_data();
    let [token_bytes @ .., fd_0, fd_1, fd_2, top] = packed.to_le_bytes();
    assert_eq!(token_bytes, token.to_le_bytes());
    assert_eq!([fd_0, fd_1, fd_2, top % 128], (fd & i32::MAX).to_le_bytes());
    assert_eq!(top >= 128, is_server);

    // Whatever the kernel gives back, it means one object, and another is packed otherwise.
    let unpacked = EventObject::from_user_data(data);
    assert_eq!(unpacked.to_user_data(), data);
    assert!(unpacked.fd >= 0);
    assert_eq!(unpacked.kind == EventKind::Server, data.leading_zeros() == 0);
    assert_eq!(unpacked == object.with_token(token), data == packed && fd >= 0);
});
