//! Large writes to a local directory in large pieces, and names that are durable before anyone is told that they are taken.
//!
//! An object is made of many small parts, and the store library writes each by a system call of its own; the kernel then clears every page
//! before it fills a part of it. Here parts are gathered into one buffer that stays in the processor's cache and is used again: the memory of a
//! write is one piece, however large the object.

use std::fmt;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    local::LocalFileSystem, path::Path,
};

use super::local::sync_entry;

/// Bytes of one write: whole pages, and less than a core's cache.
const PIECE_BYTES: usize = 256 << 10;

/// A local directory.
#[derive(Debug)]
pub(super) struct Gathering(pub(super) LocalFileSystem);

impl Gathering {
    async fn put_gathered(&self, location: &Path, payload: &PutPayload) -> Result<PutResult> {
        let options = PutMultipartOptions::default();
        let mut upload = self.0.put_multipart_opts(location, options).await?;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        for part in payload.iter() {
            let mut rest = &part[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - piece.len()));
                piece.extend_from_slice(now);
                rest = later;
                if piece.len() == PIECE_BYTES {
                    upload.put_part(piece.split().freeze().into()).await?;
                    // The write is done and nobody else has the piece: this is the same memory again.
                    piece.reserve(PIECE_BYTES);
                }
            }
        }
        if !piece.is_empty() {
            upload.put_part(piece.freeze().into()).await?;
        }
        // An upload that is dropped before this removes what it wrote.
        upload.complete().await
    }
}

impl fmt::Display for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Gathering {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if opts.mode == PutMode::Overwrite && payload.content_length() > PIECE_BYTES {
            return self.put_gathered(location, &payload).await;
        }
        let create = opts.mode == PutMode::Create;
        match self.0.put_opts(location, payload, opts).await {
            Err(Error::AlreadyExists { path, source }) if create => {
                // Whose it is decides the caller; ours from an attempt that is not answered yet is there, and not yet durable.
                let file = self.0.path_to_filesystem(location)?;
                let failed = |error: std::io::Error| Error::Generic {
                    store: "directory",
                    source: Box::new(error),
                };
                sync_entry(file).await.map_err(failed)?;
                Err(Error::AlreadyExists { path, source })
            }
            done => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn what_is_gathered_is_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let store = Gathering(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        for sizes in [
            vec![PIECE_BYTES, 1],
            vec![1, PIECE_BYTES - 1, PIECE_BYTES],
            vec![40, 3 * PIECE_BYTES + 7, 0, 40],
            vec![100; 10_000],
        ] {
            let parts: Vec<Bytes> = (0u8..=255)
                .cycle()
                .zip(&sizes)
                .map(|(fill, size)| vec![fill; *size].into())
                .collect();
            let path = Path::from("a/b");
            let payload: PutPayload = parts.iter().cloned().collect();
            store.put(&path, payload).await.unwrap();
            let found = store.get(&path).await.unwrap().bytes().await.unwrap();
            assert!(found == parts.concat(), "{:?}", &sizes[..2]);
        }
        let left: Vec<_> = std::fs::read_dir(dir.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
