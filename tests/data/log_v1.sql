BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'cellmeter','m001_first','2025-11-20 01:00:00+00:00');
CREATE TABLE "artifacts" (
   "cell_id" TEXT,
   "cell_attempt" INTEGER,
   "name" TEXT,
   "blob" TEXT,
   "size" INTEGER,
   PRIMARY KEY ("cell_id", "cell_attempt", "name")
);
INSERT INTO "artifacts" VALUES('old/reference/m/polyglot/python-reverse-string#run1',1,'stdout','sha256:16fceed19d3f55f9da618f9b89fe69d717d6015113a0d8312af96ea0eabee312',6);
CREATE TABLE "attempts" (
   "call_id" TEXT,
   "n" INTEGER,
   "started_at" INTEGER,
   "status" INTEGER,
   "retry_after_ms" REAL,
   "ratelimit" TEXT,
   "waited_ms" REAL,
   "latency_ms" REAL,
   "request_id" TEXT,
   "error" TEXT,
   PRIMARY KEY ("call_id", "n")
);
INSERT INTO "attempts" VALUES('0196b3c0a80000000000000000000001',1,1763600000500100,200,NULL,'{"x-ratelimit-remaining-requests":"9"}',NULL,990.25,NULL,NULL);
CREATE TABLE "blobs" (
   "digest" TEXT PRIMARY KEY,
   "size" INTEGER,
   "codec" TEXT,
   "base" TEXT,
   "data" BLOB
);
INSERT INTO "blobs" VALUES('sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9',114,'zstd',NULL,X'28B52FFD2072AD0200C285121790376D9DF5B61BC866D83C2381F18AD9ADAC72CACC1E0247704C6C81AEE68617E68A946362F186111ADD1821097079F18B3970F17DF5A02EFF48E32450D61BA6FA73F1B97C9C90E7240200511D4A66A1CC');
INSERT INTO "blobs" VALUES('sha256:d53d8449e590cb5a4852075cfadf897382514461d3ff9206c2cbdcacad7cc610',191,'zstd',NULL,X'28B52FFD20BF450400C2891D1D6045DB062050B3DE5AA435D610A513036CD10932ACB6B8EABC0882800BAD150E757AFB86A09B8D8A2DE3B8B3E2621B69B6566100378876B6CDBFEBF241054938351337ED02D435FCDE8AAD8B6EDE7A9A93F9FC8E6A952F77541C665C37837B0026CD2F873B23CA4DD0FA5D61DA757323807E4FF9250500340BD7593C840D9740465C530C');
INSERT INTO "blobs" VALUES('sha256:16fceed19d3f55f9da618f9b89fe69d717d6015113a0d8312af96ea0eabee312',6,'zstd',NULL,X'28B52FFD2006310000446F6E652E0A');
CREATE TABLE "calls" (
   "call_id" TEXT PRIMARY KEY,
   "session" TEXT,
   "seq" INTEGER,
   "cell_id" TEXT,
   "cell_attempt" INTEGER,
   "writer" TEXT,
   "state" TEXT,
   "via" TEXT,
   "method" TEXT,
   "endpoint" TEXT,
   "dialect" TEXT,
   "upstream" TEXT,
   "request_model" TEXT,
   "response_model" TEXT,
   "stream" INTEGER,
   "body_hash" TEXT,
   "request_hash" TEXT,
   "sent_hash" TEXT,
   "prefix_hash" TEXT,
   "new_messages" INTEGER,
   "request_bytes" INTEGER,
   "response_bytes" INTEGER,
   "request_blob" TEXT,
   "response_blob" TEXT,
   "timeline_blob" TEXT,
   "request_encoding" TEXT,
   "response_encoding" TEXT,
   "response_type" TEXT,
   "redactions" INTEGER,
   "status" INTEGER,
   "outcome" TEXT,
   "finish_reason" TEXT,
   "tool_calls" INTEGER,
   "prompt_tokens" INTEGER,
   "cache_read_tokens" INTEGER,
   "cache_write_tokens" INTEGER,
   "completion_tokens" INTEGER,
   "reasoning_tokens" INTEGER,
   "usage_source" TEXT,
   "usage" TEXT,
   "estimated_prompt_tokens" INTEGER,
   "estimated_completion_tokens" INTEGER,
   "estimate_method" TEXT,
   "cost" REAL,
   "price_source" TEXT,
   "started_at" INTEGER,
   "ended_at" INTEGER,
   "client_gone_at" INTEGER,
   "latency_ms" REAL,
   "headers_ms" REAL,
   "ttft_ms" REAL,
   "max_gap_ms" REAL,
   "frames" INTEGER,
   "queue_ms" REAL,
   "retry_number" INTEGER,
   "request_id" TEXT,
   "response_id" TEXT,
   "user_agent" TEXT,
   "client_session" TEXT,
   "error" TEXT
);
INSERT INTO "calls" VALUES('0196b3c0a80000000000000000000001','old/reference/m/polyglot/python-reverse-string#run1',1,'old/reference/m/polyglot/python-reverse-string#run1',1,'host/1/1','closed','endpoint','POST','/v1/chat/completions','chat.completions','https://api.example.com/v1','m','m-1',0,'sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9','c1:sha256:8e3d4b8fd9374db91316bb697e51dd6288b8e77630819847ffeb29b2047c5e38',NULL,'c1:sha256:2222222222222222222222222222222222222222222222222222222222222222',2,114,191,'sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9','sha256:d53d8449e590cb5a4852075cfadf897382514461d3ff9206c2cbdcacad7cc610',NULL,NULL,NULL,'application/json',0,200,'ok','stop',0,21,NULL,NULL,5,NULL,'provider','{"prompt_tokens":21,"completion_tokens":5,"total_tokens":26}',NULL,NULL,NULL,NULL,NULL,1763600000500000,1763600001500000,NULL,999.5,990.25,NULL,NULL,NULL,NULL,NULL,NULL,'c-1','reference/0.1',NULL,NULL);
INSERT INTO "calls" VALUES('0196b3c0a80000000000000000000002','anonymous',1,NULL,NULL,'host/1/1','interrupted','endpoint','POST','/v1/chat/completions','chat.completions',NULL,'m',NULL,0,'sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9','c1:sha256:8e3d4b8fd9374db91316bb697e51dd6288b8e77630819847ffeb29b2047c5e38',NULL,NULL,NULL,114,NULL,'sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9',NULL,NULL,NULL,NULL,NULL,0,NULL,'interrupted',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'none',NULL,NULL,NULL,NULL,NULL,NULL,1763600000600000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'the recording process ended before the answer did');
CREATE TABLE "cells" (
   "cell_id" TEXT,
   "attempt" INTEGER,
   "sweep_id" TEXT,
   "agent" TEXT,
   "agent_version" TEXT,
   "model" TEXT,
   "category" TEXT,
   "task" TEXT,
   "run" INTEGER,
   "task_digest" TEXT,
   "image" TEXT,
   "image_digest" TEXT,
   "isolation" TEXT,
   "expects_calls" INTEGER,
   "plugin_stack" TEXT,
   "behavior_mode" TEXT,
   "started_at" INTEGER,
   "ended_at" INTEGER,
   "phases" TEXT,
   "exit_code" INTEGER,
   "timed_out" INTEGER,
   "failure_class" TEXT,
   "failure_reason" TEXT,
   "evidence" TEXT,
   "task_facts" TEXT,
   "workspace" TEXT,
   "grade" TEXT,
   "reported" TEXT,
   "state_files" TEXT,
   PRIMARY KEY ("cell_id", "attempt")
);
INSERT INTO "cells" VALUES('old/reference/m/polyglot/python-reverse-string#run1',1,'old','reference','0.1.0','m','polyglot','python-reverse-string',1,'sha256:1111111111111111111111111111111111111111111111111111111111111111',NULL,NULL,'process',1,'["x"]','factory',1763600000001000,1763600002000000,'[{"name":"run","started_at":1763600000001000,"ended_at":1763600002000000,"error":null}]',0,0,'none','the grader passed','[]','{"language":"python","description":"Reverse a string","timeout_s":600.0,"expected_changes":["src/reverse.py"],"expected_refusal":false,"refusal_documents":[],"constraints":[]}','{"added":[],"removed":[],"modified":["src/reverse.py"],"extra_git_dir":false}','{"exit_code":0,"timed_out":false,"stdout_tail":"OK","stderr_tail":"","partial_score":null,"passed":true,"missing":[]}',NULL,'[]');
CREATE TABLE "egress" (
   "cell_id" TEXT,
   "cell_attempt" INTEGER,
   "host" TEXT,
   "port" INTEGER,
   "allowed" INTEGER,
   "sent_bytes" INTEGER,
   "received_bytes" INTEGER,
   "at" INTEGER
);
CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY,
   "value" TEXT
);
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('creator','cellmeter');
INSERT INTO "meta" VALUES('created_at','1763600000000000');
INSERT INTO "meta" VALUES('fingerprint_salt','00112233445566778899aabbccddeeff');
CREATE TABLE "scores" (
   "cell_id" TEXT,
   "cell_attempt" INTEGER,
   "methodology" TEXT,
   "axis" TEXT,
   "value" REAL,
   "unscored" TEXT,
   "detail" TEXT,
   "scorer_version" TEXT,
   "scored_at" INTEGER
);
INSERT INTO "scores" VALUES('old/reference/m/polyglot/python-reverse-string#run1',1,'cab-0.1','tokens',26.0,NULL,'{"total_tokens":26}','0.1.0',1763600009000000);
CREATE TABLE "spans" (
   "span_id" TEXT PRIMARY KEY,
   "parent_id" TEXT,
   "cell_id" TEXT,
   "cell_attempt" INTEGER,
   "kind" TEXT,
   "name" TEXT,
   "started_at" INTEGER,
   "duration_ms" REAL,
   "attrs" TEXT,
   "error" TEXT
);
INSERT INTO "spans" VALUES('0196b3c0a80000000000000000000003',NULL,'old/reference/m/polyglot/python-reverse-string#run1',1,'adapter_run','reference',1763600000001000,1999.0,'{"exit_code":0}',NULL);
CREATE TABLE "sweeps" (
   "sweep_id" TEXT PRIMARY KEY,
   "spec" TEXT,
   "spec_digest" TEXT,
   "started_at" INTEGER,
   "software_version" TEXT,
   "host" TEXT
);
INSERT INTO "sweeps" VALUES('old','{"models":["m"]}','sha256:e780cebb83ba0918202e940702fbe08c17fc17aad57ad520962877aa1a5008a9',1763600000000000,'0.1.0','{"cpus":2}');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE UNIQUE INDEX "idx_calls_session_seq"
    ON "calls" ("session", "seq");
CREATE INDEX "idx_calls_cell_id_cell_attempt"
    ON "calls" ("cell_id", "cell_attempt");
CREATE INDEX "idx_calls_state"
    ON "calls" ("state");
CREATE INDEX "idx_calls_session_prefix_hash"
    ON "calls" ("session", "prefix_hash");
CREATE INDEX "idx_spans_cell_id_cell_attempt"
    ON "spans" ("cell_id", "cell_attempt");
CREATE INDEX "idx_scores_cell_id_methodology"
    ON "scores" ("cell_id", "methodology");
COMMIT;
