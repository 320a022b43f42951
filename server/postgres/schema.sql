-- The tables of RelStorage's history-preserving schema, as SCHEMA.md describes
-- them. Every name and type is part of what is shared.

CREATE TABLE transaction (
    tid         bigint PRIMARY KEY,
    packed      boolean NOT NULL DEFAULT false,
    is_empty    boolean NOT NULL DEFAULT false,
    username    bytea NOT NULL,
    description bytea NOT NULL,
    extension   bytea
);

-- It stands for "before the first revision" where a prev_tid is needed.
INSERT INTO transaction (tid, username, description)
VALUES (0, 'system', 'special transaction for object creation');

CREATE TABLE object_state (
    zoid       bigint NOT NULL,
    tid        bigint NOT NULL REFERENCES transaction,
    prev_tid   bigint NOT NULL REFERENCES transaction,
    md5        char(32),
    state_size bigint NOT NULL,
    state      bytea,
    CONSTRAINT object_state_pk PRIMARY KEY (zoid, tid),
    CHECK (tid > 0),
    CHECK (state_size >= 0)
);
CREATE INDEX object_state_tid ON object_state (tid);
CREATE INDEX object_state_prev_tid ON object_state (prev_tid);

CREATE TABLE current_object (
    zoid bigint PRIMARY KEY,
    tid  bigint NOT NULL,
    FOREIGN KEY (zoid, tid) REFERENCES object_state (zoid, tid)
);
CREATE INDEX current_object_tid ON current_object (tid);

CREATE VIEW current_object_state AS
    SELECT zoid, tid, state FROM object_state JOIN current_object USING (zoid, tid);

CREATE TABLE blob_chunk (
    zoid      bigint NOT NULL,
    tid       bigint NOT NULL,
    chunk_num bigint NOT NULL,
    chunk     oid NOT NULL,
    CONSTRAINT blob_chunk_pk PRIMARY KEY (zoid, tid, chunk_num),
    CONSTRAINT blob_chunk_fk FOREIGN KEY (zoid, tid) REFERENCES object_state (zoid, tid) ON DELETE CASCADE
);
CREATE INDEX blob_chunk_lookup ON blob_chunk (zoid, tid);

-- A large object goes with the last row that names it. RelStorage knows the
-- trigger and its function by these names and puts its own function here.
CREATE FUNCTION blob_chunk_delete_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM blob_chunk b WHERE b.chunk = OLD.chunk
                   AND (b.zoid, b.tid, b.chunk_num) <> (OLD.zoid, OLD.tid, OLD.chunk_num)) THEN
        PERFORM lo_unlink(OLD.chunk);
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER blob_chunk_delete BEFORE DELETE ON blob_chunk
    FOR EACH ROW EXECUTE FUNCTION blob_chunk_delete_trigger();

-- Each value stands for 16 oids, up to 16 times the value.
CREATE SEQUENCE zoid_seq;

-- RelStorage's alone, for packing and for commits on other databases. They are
-- here because it would complain of a schema without them.
CREATE TABLE commit_row_lock (tid bigint PRIMARY KEY);
INSERT INTO commit_row_lock VALUES (0);

CREATE TABLE object_ref (
    zoid    bigint NOT NULL,
    tid     bigint NOT NULL,
    to_zoid bigint NOT NULL,
    PRIMARY KEY (tid, zoid, to_zoid)
);
CREATE TABLE object_refs_added (tid bigint PRIMARY KEY);

CREATE TABLE pack_object (
    zoid     bigint PRIMARY KEY,
    keep     boolean NOT NULL,
    keep_tid bigint NOT NULL,
    visited  boolean NOT NULL DEFAULT false
);
CREATE INDEX pack_object_keep_false ON pack_object (zoid) WHERE keep = false;
CREATE INDEX pack_object_keep_true ON pack_object (visited) WHERE keep = true;

CREATE TABLE pack_state (
    tid  bigint NOT NULL,
    zoid bigint NOT NULL,
    PRIMARY KEY (tid, zoid)
);
CREATE TABLE pack_state_tid (tid bigint PRIMARY KEY);

-- Ours: without it, removing a blob reads the whole of blob_chunk.
CREATE INDEX zeolite_blob_chunk ON blob_chunk (chunk);
