# A first look without installing anything: docker build -t thinkrec . && docker run --rm -v "$PWD/look:/thinkrec/out" thinkrec
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /thinkrec
COPY . .
RUN make .venv/made
CMD ["make", "quick"]
