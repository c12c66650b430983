"""Bodies stored once and small: what a session resends is kept as what is new in it."""

from cellmeter_proxy.blobs.recipe import Place
from cellmeter_proxy.blobs.store import BlobStore, Content
from cellmeter_proxy.blobs.strands import STRAND, BlobReader, at_of

__all__ = ["STRAND", "BlobReader", "BlobStore", "Content", "Place", "at_of"]
