"""Bodies stored once and small: what a session resends is kept as what is new in it."""

from cellmeter_proxy.blobs.store import BlobStore, Content
from cellmeter_proxy.blobs.strands import BlobReader

__all__ = ["BlobReader", "BlobStore", "Content"]
