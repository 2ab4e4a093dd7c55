//! Some hundred elements of a list, encoded and compressed.

use minicbor::Decoder;

use super::{CHUNK_LEN, Pack};
use crate::block::frame::{Compressor, Expander, Level};

const FAST: Level = Level::new(1).expect("there is a level 1");

/// [`CHUNK_LEN`] elements.
#[derive(Clone)]
pub(super) struct Chunk<T> {
    /// The first element, used to search for the chunk.
    pub(super) first: T,
    pub(super) bytes: Box<[u8]>,
    /// Bytes before compression; 0 if not compressed.
    plain: usize,
}

impl<T: Pack> Chunk<T> {
    /// Packs at least one element; leaves the list empty.
    pub(super) fn pack(elements: &mut Vec<T>, compressor: &mut Compressor) -> Self {
        let mut bytes = Vec::new();
        for element in elements.iter() {
            minicbor::encode(element, &mut bytes).expect("writing to a Vec cannot fail");
        }

        let first = elements.swap_remove(0);
        elements.clear();
        let frame = compressor.begin(FAST, Some(bytes.len())).and_then(|()| {
            compressor.add(&bytes)?;
            compressor.end()
        });

        match frame {
            Some(frame) if frame.len() < bytes.len() => Self {
                first,
                bytes: frame.into(),
                plain: bytes.len(),
            },
            _ => Self {
                first,
                bytes: bytes.into(),
                plain: 0,
            },
        }
    }

    /// Returns the elements.
    pub(super) fn unpack(&self, expander: &mut Expander) -> Vec<T> {
        let bytes = match self.plain {
            0 => &self.bytes,
            plain => expander
                .expand(&self.bytes, plain)
                .expect("what was packed here is unpacked, if there is memory"),
        };

        let mut decoder = Decoder::new(bytes);
        let mut elements = Vec::with_capacity(CHUNK_LEN);
        while decoder.position() < bytes.len() {
            elements.push(decoder.decode().expect("what was encoded here is decoded"));
        }

        elements
    }
}
