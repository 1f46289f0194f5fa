"""Which block of the cache holds what: counted owners, and full blocks found again by their content. No Paddle."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

_KEY = secrets.token_bytes(32)
"""Of this process: nobody outside can make two prompts share a hash."""


class BlockPool:
    """A fixed number of blocks of tokens.

    A block that nobody owns stays findable by its content until it is needed: the one that was let go first is taken
    first. Only full blocks are findable, each by the hash of its tokens and of all before them.

    Source: Kwon et al. 2023, arXiv:2309.06180, section 4 (paged keys and values).
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._owners = np.zeros(num_blocks, dtype=np.int32)
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(num_blocks))
        self._by_hash: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self.queries = 0
        """Tokens that were looked up."""
        self.hits = 0
        """Tokens that were found."""

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated."""
        return len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold so many tokens."""
        return -(-num_tokens // self.block_tokens)

    def allocate(self) -> int | None:
        """Return a block with one owner, forgetting what it held; ``None`` where all are owned."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        known = self._hash_of.pop(block, None)
        if known is not None:
            del self._by_hash[known]
        self._owners[block] = 1
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one ownership of each; the last of a sequence is reused first."""
        for block in reversed(blocks):
            assert self._owners[block] > 0, f"block {block} has no owner"
            self._owners[block] -= 1
            if self._owners[block] == 0:
                self._free[block] = None

    def find(self, tokens: Sequence[int], salt: bytes = b"") -> list[int]:
        """Return the longest run of blocks that hold the beginning of ``tokens``, and own them.

        The last token is never among them: its logits must be computed.
        """
        usable = (len(tokens) - 1) // self.block_tokens
        self.queries += len(tokens)
        found: list[int] = []
        chain = salt
        for index in range(usable):
            chain = self._chained(chain, tokens[index * self.block_tokens : (index + 1) * self.block_tokens])
            block = self._by_hash.get(chain)
            if block is None:
                break
            found.append(block)
        for block in found:
            if self._owners[block] == 0:
                del self._free[block]
            self._owners[block] += 1
        self.hits += len(found) * self.block_tokens
        return found

    def remember(self, blocks: Sequence[int], tokens: Sequence[int], already: int, salt: bytes = b"") -> int:
        """Make full blocks findable.

        Args:
            blocks: of one sequence, in its order.
            tokens: whose keys and values are computed.
            already: blocks that were made findable before.
            salt: sets sequences apart that must not share (another adapter).

        Returns:
            Full blocks so far.
        """
        full = len(tokens) // self.block_tokens
        if full <= already:
            return already
        chain = self._hash_of.get(blocks[already - 1], b"") if already else salt
        if already and not chain:  # another sequence with the same content was first: hash anew
            chain = salt
            for index in range(already):
                chain = self._chained(chain, tokens[index * self.block_tokens : (index + 1) * self.block_tokens])
        for index in range(already, full):
            chain = self._chained(chain, tokens[index * self.block_tokens : (index + 1) * self.block_tokens])
            if chain not in self._by_hash and blocks[index] not in self._hash_of:
                self._by_hash[chain] = blocks[index]
                self._hash_of[blocks[index]] = chain
        return full

    def check(self) -> None:
        """Make sure that every block is owned or free, and found under one hash.

        Raises:
            AssertionError: the books are wrong.
        """
        owned = {int(block) for block in np.flatnonzero(self._owners)}
        assert not owned & self._free.keys(), "a block is owned and free"
        assert len(owned) + len(self._free) == self.num_blocks, "a block is lost"
        assert {block: known for known, block in self._by_hash.items()} == self._hash_of, "the two indexes differ"

    def _chained(self, before: bytes, tokens: Sequence[int]) -> bytes:
        data = np.asarray(tokens, dtype=np.int64).tobytes()
        return hashlib.blake2b(before + data, digest_size=32, key=_KEY).digest()
