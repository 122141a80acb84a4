// A client of the contract in protos/dafh/v1, read at run time; nothing is generated.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

export interface Case {
  name: string;
  modality: string;
  bodyPart: string;
  label: string;
  retrieveUri: string;
}

export interface Hit {
  case: Case;
  distance: number;
  score: number;
  /** Absent where nothing is known; that is not 0. */
  probability?: number;
}

export interface RetrieveResponse {
  hits: Hit[];
  nextPageToken: string;
  query: { modelVersion: number; bits: number; inDistribution?: boolean };
}

export interface RetrieveRequest {
  archive?: string;
  query?: { dicom?: Buffer; picture?: Buffer; case?: string };
  topK?: number;
  pageSize?: number;
  pageToken?: string;
  filter?: string;
  includeSamePatient?: boolean;
}

type Callback<T> = (error: grpc.ServiceError | null, response?: T) => void;

interface RetrievalStub extends grpc.Client {
  retrieve(
    request: RetrieveRequest,
    options: grpc.CallOptions,
    callback: Callback<RetrieveResponse>,
  ): grpc.ClientUnaryCall;
  retrieveUpload(
    options: grpc.CallOptions,
    callback: Callback<{ response: RetrieveResponse }>,
  ): grpc.ClientWritableStream<object>;
}

/** A larger image does not fit into one message. */
const LARGEST = 15 * 1024 * 1024;
const CHUNK = 1024 * 1024;
const DICOM = 1;

/** The gateway takes no larger message. */
const MAX_MESSAGE = 64 * 1024 * 1024;

/** Every call may be repeated: after the delay that the gateway gives, else after the backoff. */
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "dafh.v1.RetrievalService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

export class Dafh {
  private readonly stub: RetrievalStub;

  /**
   * @param address host:port of a gateway
   * @param protos the folder `protos` of DAFH
   * @param credentials of TLS and a token; plaintext without them, for loopback only
   * @param seconds that a call may take
   */
  constructor(
    address: string,
    protos: string,
    credentials: grpc.ChannelCredentials = grpc.credentials.createInsecure(),
    private readonly seconds = 30,
  ) {
    const google = path.dirname(createRequire(import.meta.url).resolve("google-proto-files/package.json"));
    const definition = loader.loadSync("dafh/v1/retrieval_service.proto", {
      includeDirs: [protos, google],
      longs: Number,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const loaded = grpc.loadPackageDefinition(definition) as unknown as {
      dafh: { v1: { RetrievalService: new (...args: unknown[]) => RetrievalStub } };
    };
    this.stub = new loaded.dafh.v1.RetrievalService(address, credentials, {
      "grpc.enable_http_proxy": 0,
      "grpc.max_receive_message_length": MAX_MESSAGE,
      "grpc.max_send_message_length": MAX_MESSAGE,
      // What is kept of a call, and of all together, to be sent again: by default less than many images have.
      "grpc.per_rpc_retry_buffer_size": MAX_MESSAGE,
      "grpc.retry_buffer_size": 4 * MAX_MESSAGE,
      "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    });
  }

  /** Answer with the cases most similar to an image; a large one is sent in chunks. */
  async retrieve(request: RetrieveRequest): Promise<RetrieveResponse> {
    const dicom = request.query?.dicom;
    if (dicom !== undefined && dicom.length > LARGEST) {
      return this.upload(request, dicom);
    }
    return new Promise((resolve, reject) => {
      this.stub.retrieve(request, this.options(), (error, response) =>
        error ? reject(error) : resolve(response!),
      );
    });
  }

  /** Yield all pages of an answer; the image is sent once. */
  async *pages(request: RetrieveRequest): AsyncGenerator<RetrieveResponse> {
    let response = await this.retrieve(request);
    yield response;
    while (response.nextPageToken !== "") {
      const { query: _, ...same } = request;
      response = await this.retrieve({ ...same, pageToken: response.nextPageToken });
      yield response;
    }
  }

  close(): void {
    this.stub.close();
  }

  private async upload(request: RetrieveRequest, image: Buffer): Promise<RetrieveResponse> {
    return new Promise((resolve, reject) => {
      const call = this.stub.retrieveUpload(this.options(), (error, answer) =>
        error ? reject(error) : resolve(answer!.response),
      );
      const sha256 = createHash("sha256").update(image).digest();
      const { query: _, ...question } = request;
      call.write({ header: { request: question, format: DICOM, sizeBytes: image.length, sha256 } });
      for (let offset = 0; offset < image.length; offset += CHUNK) {
        call.write({ chunk: { offset, data: image.subarray(offset, offset + CHUNK) } });
      }
      call.end();
    });
  }

  private options(): grpc.CallOptions {
    return { deadline: Date.now() + 1000 * this.seconds };
  }
}
