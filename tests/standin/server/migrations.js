"use strict";

/*
 * Immich's migrations by release, and what the stand-in does for them: only what it needs itself.
 *
 * The names are those of server/src/schema/migrations/ORDER of v3.2.0-rc.0 (commit a6ad970) and, after that, of copies of the
 * main branch. Which release had one first is known for most, see _utils/immich_core/versions.py; v3.4.0 is made up.
 */

const names = require("./migrations.json");
const { compare } = require("./versions");

const STATEMENTS = {
  "1744910873969-InitialMigration": [
    `CREATE TABLE system_metadata (key varchar PRIMARY KEY, value jsonb NOT NULL)`,
    `CREATE TABLE version_history (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), "createdAt" timestamptz NOT NULL DEFAULT now(), version varchar NOT NULL)`,
    // "users", "assets", "asset_faces", "sessions", "api_keys" and "libraries" until 1752267649968-StandardizeNames.
    `CREATE TABLE "user" (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), email varchar NOT NULL UNIQUE, name varchar NOT NULL DEFAULT '',
      password varchar, "isAdmin" boolean NOT NULL DEFAULT false, "createdAt" timestamptz NOT NULL DEFAULT now(),
      "updatedAt" timestamptz NOT NULL DEFAULT now(), "deletedAt" timestamptz, status varchar NOT NULL DEFAULT 'active',
      "shouldChangePassword" boolean NOT NULL DEFAULT true, "storageLabel" varchar UNIQUE, "oauthId" varchar NOT NULL DEFAULT '',
      "quotaSizeInBytes" bigint, "quotaUsageInBytes" bigint NOT NULL DEFAULT 0)`,
    `CREATE TABLE session (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), token bytea NOT NULL,
      "userId" uuid NOT NULL REFERENCES "user"(id) ON UPDATE CASCADE ON DELETE CASCADE,
      "createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE TABLE api_key (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name varchar NOT NULL, key bytea NOT NULL,
      "userId" uuid NOT NULL REFERENCES "user"(id) ON UPDATE CASCADE ON DELETE CASCADE, permissions varchar[] NOT NULL,
      "createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE TABLE library (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name varchar NOT NULL,
      "ownerId" uuid NOT NULL REFERENCES "user"(id) ON UPDATE CASCADE ON DELETE CASCADE, "importPaths" text[] NOT NULL,
      "exclusionPatterns" text[] NOT NULL, "createdAt" timestamptz NOT NULL DEFAULT now(),
      "updatedAt" timestamptz NOT NULL DEFAULT now(), "deletedAt" timestamptz, "refreshedAt" timestamptz)`,
    `CREATE TABLE asset (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), "originalPath" varchar NOT NULL, "originalFileName" varchar NOT NULL,
      checksum bytea NOT NULL, "createdAt" timestamptz NOT NULL DEFAULT now())`,
    `CREATE TABLE smart_search (
      "assetId" uuid PRIMARY KEY REFERENCES asset(id) ON DELETE CASCADE, embedding vector(512) NOT NULL)`,
    `CREATE TABLE asset_face (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), "assetId" uuid NOT NULL REFERENCES asset(id) ON UPDATE CASCADE ON DELETE CASCADE,
      "imageWidth" integer NOT NULL DEFAULT 0, "imageHeight" integer NOT NULL DEFAULT 0,
      "boundingBoxX1" integer NOT NULL DEFAULT 0, "boundingBoxY1" integer NOT NULL DEFAULT 0,
      "boundingBoxX2" integer NOT NULL DEFAULT 0, "boundingBoxY2" integer NOT NULL DEFAULT 0)`,
    `CREATE TABLE face_search (
      "faceId" uuid PRIMARY KEY REFERENCES asset_face(id) ON DELETE CASCADE, embedding vector(512) NOT NULL)`,
    `CREATE TABLE geodata_places (id integer PRIMARY KEY, name varchar NOT NULL, latitude float8 NOT NULL, longitude float8 NOT NULL)`,
    `CREATE FUNCTION f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
      RETURN unaccent('unaccent', $1)`,
    `CREATE INDEX geodata_gist_earthcoord ON geodata_places USING gist (ll_to_earth(latitude, longitude))`,
    `CREATE INDEX asset_original_file_name_trigram ON asset USING gin (f_unaccent("originalFileName") gin_trgm_ops)`,
  ],
  "1758705774125-CreateAssetOCRTable": [
    `CREATE TABLE asset_ocr (
      id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), "assetId" uuid NOT NULL REFERENCES asset(id) ON UPDATE CASCADE ON DELETE CASCADE,
      x1 real NOT NULL, y1 real NOT NULL, x2 real NOT NULL, y2 real NOT NULL, x3 real NOT NULL, y3 real NOT NULL,
      x4 real NOT NULL, y4 real NOT NULL, "boxScore" real NOT NULL, "textScore" real NOT NULL, text text NOT NULL)`,
  ],
  "1758705789125-CreateOCRSearchTable": [
    `CREATE TABLE ocr_search (
      "assetId" uuid PRIMARY KEY REFERENCES asset(id) ON UPDATE CASCADE ON DELETE CASCADE, text text NOT NULL)`,
    `CREATE INDEX idx_ocr_search_text ON ocr_search USING gin (f_unaccent(text) gin_trgm_ops)`,
  ],
  "1768336694315-CreateIsVisibleColumns": [`ALTER TABLE asset_ocr ADD COLUMN "isVisible" boolean NOT NULL DEFAULT true`],
  "1793000000000-AddAssetRating": [`ALTER TABLE asset ADD COLUMN rating integer`],
};

const RELEASES = Object.entries(names)
  .map(([version, migrations]) => ({ version, migrations }))
  .sort((left, right) => compare(left.version, right.version));

module.exports = { RELEASES, STATEMENTS };
