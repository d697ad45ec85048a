-- Which process of its gateway holds the place of a server, who held it and who wanted it lately: JSON, see gateway-proto, twice.
ALTER TABLE servers ADD COLUMN seat TEXT;
