#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    makuo::fuzz::places(bytes);
});
