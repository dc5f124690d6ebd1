package example;

import com.google.protobuf.ByteString;
import inferd.v1.DataType;
import inferd.v1.ModelSpec;
import inferd.v1.PredictRequest;
import inferd.v1.PredictResponse;
import inferd.v1.PredictServiceGrpc;
import inferd.v1.Tensor;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.TimeUnit;

/** Calls the model "digits_onnx" of an inferd server. Argument: the address, localhost:8001 without one. */
public final class Digits {
  public static void main(String[] arguments) throws InterruptedException {
    String address = arguments.length > 0 ? arguments[0] : "localhost:8001";
    // Without TLS. The limit of received messages is 4 MiB unless it is raised here.
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(address).usePlaintext().maxInboundMessageSize(64 << 20).build();
    try {
      float[] pixels = new float[64]; // one image of 8 by 8 pixels
      ByteBuffer data = ByteBuffer.allocate(4 * pixels.length).order(ByteOrder.LITTLE_ENDIAN);
      for (float pixel : pixels) {
        data.putFloat(pixel);
      }
      data.flip();
      // Every call needs a deadline. A StatusRuntimeException says what was expected and what came.
      PredictResponse answer =
          PredictServiceGrpc.newBlockingStub(channel)
              .withDeadlineAfter(5, TimeUnit.SECONDS)
              .predict(
                  PredictRequest.newBuilder()
                      .setModel(ModelSpec.newBuilder().setName("digits_onnx"))
                      .addInputs(
                          Tensor.newBuilder()
                              .setName("image")
                              .setDtype(DataType.DATA_TYPE_FP32)
                              .addShape(1)
                              .addShape(pixels.length)
                              .setData(ByteString.copyFrom(data)))
                      .build());
      for (Tensor output : answer.getOutputsList()) {
        if (output.getName().equals("digit")) {
          long digit = output.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).getLong();
          System.out.println("digit " + digit + " from version " + answer.getVersion());
        }
      }
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
